// A link that is up: k slots with a connection each to one peer, and what is queued for it. The
// reactor thread only.
//
// A connection that is lost leaves its slot empty until another takes its place (make_way(),
// resume()); nothing is lost or comes twice by it (SlotLog), and the others go on meanwhile.
//
// Owned by the shell, which outlives it. A link ends once: ended() is called, after which it delivers
// nothing and sends nothing; its owner destroys it when no call of it is on the stack any more.
// Memory that a link may hold: docs/wire.md, "Limits".
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
#include "atoll/net/pacer.h"
#include "atoll/net/repair_attempts.h"
#include "atoll/net/send_queue.h"
#include "atoll/net/slot_log.h"
#include "atoll/wire/frame.h"

namespace reef {

class Link;

// Who makes another connection for an empty slot.
enum class Repair : std::uint8_t { none, by_us, by_peer };

class LinkOwner {
 public:
  // Where a payload goes. A frame may be asked for again after displaced(), when it comes once more
  // on another connection.
  virtual Destination place(Link& link, const FrameHeader& header) = 0;
  // A whole frame of any type but heartbeat and bye. An error ends the link (protocol).
  virtual Status deliver(Link& link, const FrameHeader& header,
                         std::span<const std::byte> payload) = 0;
  virtual void displaced(Link& link, const FrameHeader& header) = 0;
  // The slot has lost its connection. none: the link ends.
  virtual Repair lost(Link& link, std::uint32_t slot) = 0;
  virtual void ended(Link& link, LinkEnd reason, const std::string& message) = 0;
  // The next data frame; false when there is none until data_waiting() is called again.
  virtual bool pull(Link& link, OutFrame& frame) = 0;
  // Call keep_pace() then.
  virtual void keeps_pace(Link& link, Nanos until) = 0;
  // Something was queued on a link that had nothing to send: call flush() soon.
  virtual void wants_flush(Link& link) = 0;

 protected:
  ~LinkOwner() = default;
};

struct LinkTiming {
  Nanos heartbeat = 0;
  Nanos silence = 0;
  Nanos grace = 0;  // all connections lost, and the peer should dial: it has so long
};

// Monotone counters, at the socket.
struct LinkTally {
  std::uint64_t sent_bytes = 0;
  std::uint64_t received_bytes = 0;
  Nanos sending = 0;    // time with something to send
  Nanos receiving = 0;  // time inside payloads
  std::uint64_t repairs = 0;  // connections that took the place of lost ones
  std::uint64_t damaged = 0;  // frames with a wrong checksum
  LinkTally& operator+=(const LinkTally& other);
};

class Link final : public ConnectionOwner {
 public:
  // Starts the connections, which no one has started yet.
  static Result<std::unique_ptr<Link>> create(Poller& poller, const PeerId& peer,
                                              std::vector<std::unique_ptr<Connection>> connections,
                                              LinkTiming timing, LinkOwner& owner);
  ~Link() = default;
  Link(const Link&) = delete;
  Link& operator=(const Link&) = delete;

  [[nodiscard]] const PeerId& peer() const { return peer_; }
  [[nodiscard]] std::uint32_t slots() const { return static_cast<std::uint32_t>(slots_.size()); }
  [[nodiscard]] std::uint32_t connections() const;  // those that live
  [[nodiscard]] bool is_empty(std::uint32_t slot) const;
  [[nodiscard]] std::size_t donations() const { return queue_.donations(); }
  [[nodiscard]] LinkTally tally(Nanos now) const;  // with the intervals that are still running

  // The shortest round trip of its connections, and what all of them, lost ones too, sent again.
  [[nodiscard]] TcpFigures figures() const;

  void send_control(OutFrame frame);
  // The owner has data: it is pulled, frame by frame, as there is room.
  void data_waiting();
  void donate(Donation donation);
  // Goes when there is nothing else to send.
  void send_filler(OutFrame frame);
  void flush();
  // Its part of the members' lines, as measured (Pacer::expect()); counts on a long path alone.
  bool expect(double bytes_per_s);
  // Nothing holds it back, until false: it is being measured.
  void unleash(bool free);
  // Goes on with data that its pace held back. Returns when to call again; it may also ask for that
  // by keeps_pace().
  Nanos keep_pace(Nanos now);
  // Lets its pacer see what its path carries; every kPaceEvery while this is true of any link.
  bool observe_path(Nanos now);
  [[nodiscard]] Pacer& pacer() { return pacer_; }
  [[nodiscard]] double expected_bytes_per_s() const { return pacer_.expected_bytes_per_s(); }
  [[nodiscard]] double delivered_bytes_per_s() const { return pacer_.delivered_bytes_per_s(); }
  [[nodiscard]] double pace_bytes_per_s() const { return free_ ? 0 : pacer_.bytes_per_s(); }
  void forget(OpId op);
  // Heartbeats and silence. Returns when to call again at the latest.
  Nanos tick(Nanos now);

  // Repair. describe() fills a HELLO for a new attempt at this empty slot. make_way() is for the
  // peer's attempt: empties the slot and fills the HELLO_ACK; false when the attempt is an old one.
  // resume() puts a connection into an empty slot: `peer` is what the peer has said in its HELLO or
  // HELLO_ACK, above all how many frames it has received there.
  void describe(std::uint32_t slot, Hello& hello);
  bool make_way(const Hello& hello, Hello& ack);
  void resume(Poller& poller, std::unique_ptr<Connection> connection, const Hello& peer);
  // There will be no other connection. Ends the link, for the reason why the first was lost.
  void give_up(std::uint32_t slot, const std::string& message);

  // Ends at once, with this reason.
  void fail(LinkEnd reason, const std::string& message);
  // Ends on purpose: nothing is delivered any more; what is queued (but donations) and a BYE on each
  // connection are still sent. depart() goes on with that, also when a socket becomes ready, and
  // returns true when all is sent and the peer has closed, too.
  void leave();
  bool depart();

  // ConnectionOwner
  Destination place(const FrameHeader& header) override;
  Status deliver(Connection& connection, const FrameHeader& header,
                 std::span<const std::byte> payload, bool thrown_away) override;
  void displaced(const FrameHeader& header) override { owner_.displaced(*this, header); }
  bool take(Connection& connection, OutFrame& frame) override;
  void wrote(Connection& connection, OutFrame frame) override;
  void ready(Connection& connection, std::uint32_t events) override;
  void received(std::size_t bytes) override;
  void sent(std::size_t bytes) override;
  void inside_payload(bool inside) override;
  [[nodiscard]] bool over() const override { return stage_ != Stage::up; }

 private:
  enum class Stage : std::uint8_t { up, leaving, ended };
  struct Slot {
    std::unique_ptr<Connection> connection;  // null: lost
    SlotLog log;
    RepairAttempts attempts;
    std::uint32_t damaged = 0;  // frames in a row
    Nanos lost_at = 0;
    LinkEnd reason = LinkEnd::reset;
    std::string why;
  };
  Link(const PeerId& peer, LinkTiming timing, LinkOwner& owner);
  void heard_bye(Connection& connection);
  Status heard_count(Slot& slot, std::uint64_t received);
  OutFrame heartbeat(Slot& slot);
  bool beat(Slot& slot, Nanos now, Nanos& next);
  void lose(std::uint32_t slot, LinkEnd reason, const std::string& why);
  void empty(Slot& slot, LinkEnd reason, const std::string& why);
  [[nodiscard]] Nanos repair_deadline(const Slot& slot) const;
  void want_flush();
  void receive_from(Connection& connection);
  void write_to(Connection& connection);
  void queued();
  void note_sending(Nanos now);
  [[nodiscard]] PathCounts path() const;
  bool pull_in_time(OutFrame& frame);
  void let_go();

  PeerId peer_;
  LinkTiming timing_;
  LinkOwner& owner_;
  LinkTally tally_;
  std::uint64_t past_retransmitted_ = 0;  // on connections that were lost
  Stage stage_ = Stage::up;
  SendQueue queue_;
  Pacer pacer_;
  Budget budget_;
  bool free_ = false;
  Nanos renewed_at_ = kNever;
  Nanos held_until_ = kNever;   // data waits for the pace; kNever: none does
  std::vector<Slot> slots_;
  std::vector<std::unique_ptr<Connection>> spent_;  // lost ones, whose calls may be on the stack
  Repair repair_ = Repair::by_peer;  // who is to mend it, as of the last loss
  Nanos all_lost_at_ = kNever;
  std::size_t turn_ = 0;  // the connection that is offered the next frame first
  bool flush_wanted_ = false;
  std::size_t byes_ = 0;
  bool farewell_ = false;  // leaving: BYE is said
  Nanos last_received_ = 0;
  std::uint32_t unproven_ = 0;  // new connections since something was received
  Nanos sending_since_ = kNever;    // kNever: nothing to send
  Nanos receiving_since_ = kNever;  // kNever: in no payload
  std::uint32_t payloads_ = 0;      // connections inside a payload
};

}  // namespace reef
