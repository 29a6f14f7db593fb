// A link that is up: k connections to one peer and what is queued for it. The reactor thread only.
//
// Owned by the shell, which outlives it. A link ends once: ended() is called, after which it delivers
// nothing and sends nothing; its owner destroys it when no call of it is on the stack any more.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "atoll/base/ids.h"
#include "atoll/base/result.h"
#include "atoll/base/time.h"
#include "atoll/net/connection.h"
#include "atoll/net/link_end.h"
#include "atoll/net/send_queue.h"

namespace reef {

class Link;

class LinkOwner {
 public:
  virtual Destination place(Link& link, const FrameHeader& header) = 0;
  // A whole frame of any type but heartbeat and bye. An error ends the link (protocol).
  virtual Status deliver(Link& link, const FrameHeader& header,
                         std::span<const std::byte> payload) = 0;
  virtual void ended(Link& link, LinkEnd reason, const std::string& message) = 0;
  // Something was queued on a link that had nothing to send: call flush() soon.
  virtual void wants_flush(Link& link) = 0;

 protected:
  ~LinkOwner() = default;
};

struct LinkTiming {
  Nanos heartbeat = 0;
  Nanos silence = 0;
};

// Monotone counters, at the socket.
struct LinkTally {
  std::uint64_t sent_bytes = 0;
  std::uint64_t received_bytes = 0;
  Nanos sending = 0;    // time with something to send
  Nanos receiving = 0;  // time inside payloads
  LinkTally& operator+=(const LinkTally& other);
};

class Link final : public ConnectionOwner {
 public:
  static Result<std::unique_ptr<Link>> create(Poller& poller, const PeerId& peer,
                                              std::vector<Fd> sockets, LinkTiming timing,
                                              LinkOwner& owner);
  ~Link() = default;
  Link(const Link&) = delete;
  Link& operator=(const Link&) = delete;

  [[nodiscard]] const PeerId& peer() const { return peer_; }
  [[nodiscard]] std::uint32_t connections() const;
  [[nodiscard]] std::size_t donations() const { return queue_.donations(); }
  [[nodiscard]] LinkTally tally(Nanos now) const;  // with the intervals that are still running

  void send_control(OutFrame frame);
  void send_data(OutFrame frame);
  void donate(Donation donation);
  void flush();
  void forget(OpId op);
  // Heartbeats and silence. Returns when to call again at the latest.
  Nanos tick(Nanos now);

  // Ends at once, with this reason.
  void fail(LinkEnd reason, const std::string& message);
  // Ends on purpose: nothing is delivered any more; what is queued (but donations) and a BYE on each
  // connection are still sent. depart() goes on with that, also when a socket becomes ready, and
  // returns true when all is sent and the peer has closed, too.
  void leave();
  bool depart();

  // ConnectionOwner
  Destination place(const FrameHeader& header) override;
  Status deliver(const FrameHeader& header, std::span<const std::byte> payload) override;
  bool take(OutFrame& frame) override;
  void ready(Connection& connection, std::uint32_t events) override;
  void received(std::size_t bytes) override;
  void sent(std::size_t bytes) override;
  void inside_payload(bool inside) override;
  [[nodiscard]] bool over() const override { return stage_ != Stage::up; }

 private:
  enum class Stage : std::uint8_t { up, leaving, ended };
  Link(const PeerId& peer, LinkTiming timing, LinkOwner& owner);
  void heard_bye();
  void receive_from(Connection& connection);
  void write_to(Connection& connection);
  void queued();
  void note_sending(Nanos now);

  PeerId peer_;
  LinkTiming timing_;
  LinkOwner& owner_;
  LinkTally tally_;
  Stage stage_ = Stage::up;
  SendQueue queue_;
  std::vector<std::unique_ptr<Connection>> connections_;
  std::size_t turn_ = 0;  // the connection that is offered the next frame first
  bool flush_wanted_ = false;
  Connection* receiving_ = nullptr;  // the one whose frames are being delivered
  std::size_t byes_ = 0;
  bool farewell_ = false;  // leaving: BYE is said
  Nanos last_received_ = 0;
  Nanos sending_since_ = kNever;    // kNever: nothing to send
  Nanos receiving_since_ = kNever;  // kNever: in no payload
  std::uint32_t payloads_ = 0;      // connections inside a payload
};

}  // namespace reef
