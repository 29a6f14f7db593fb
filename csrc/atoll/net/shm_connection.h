// A connection through memory that both peers share: frames are written into a ring and read out of
// it. The reactor thread only.
//
// In the ring every frame begins at a multiple of 16 bytes, so that the numbers of a payload can be
// used where they lie. A payload with a destination is copied there as it arrives. One without is
// handed on as a span into the ring, when all of it is there; if it is too long for that (more than
// half of the ring), it is gathered in memory of the connection's own.
//
// Bells: a side that finds nothing to do leaves a wish in the ring and sleeps in epoll on its
// eventfd.
// Failure: the end of the Unix socket is the peer's end, noticed after the ring has been read to
// its end; what a ring cannot hold is a protocol error.
#pragma once

#include <cstddef>
#include <deque>
#include <memory>
#include <optional>

#include "atoll/net/connection.h"
#include "atoll/net/local_channel.h"
#include "atoll/net/poller.h"
#include "atoll/net/shm_ring.h"

namespace reef {

class ShmConnection final : public Connection {
 public:
  explicit ShmConnection(LocalChannel channel);
  ShmConnection(const ShmConnection&) = delete;
  ShmConnection& operator=(const ShmConnection&) = delete;

  Status start(Poller& poller, ConnectionOwner& owner) override;
  Status receive() override;
  Status flush() override;
  void forget(OpId op) override;
  void append(OutFrame frame) override { appended_.push_back(std::move(frame)); }
  [[nodiscard]] bool writing() const override { return frame_ || !appended_.empty(); }
  [[nodiscard]] bool blocked() const override { return blocked_; }
  bool drain() override;
  void finish_writing() override;
  void retire() override;
  [[nodiscard]] bool retired() const override { return retired_; }

 private:
  enum class Into : std::uint8_t { destination, ring, nowhere };
  struct Watch final : Ready {
    Watch(ShmConnection& its_connection, void (ShmConnection::*its_call)())
        : connection(its_connection), call(its_call) {}
    void on_ready(std::uint32_t) override { (connection.*call)(); }
    ShmConnection& connection;
    void (ShmConnection::*call)();
  };

  void on_bell();
  void on_socket();
  void ring_peer() const;
  void come_back() const;

  // Each takes what is there, and returns how many bytes must be there to go on; 0: it went on.
  Result<std::size_t> read_header();
  Result<std::size_t> read_payload();
  Result<std::size_t> read_in_place();
  Status end_payload(std::span<const std::byte> payload);
  void inside(bool now_inside);
  void release();

  bool next_frame();
  std::size_t write_some(std::span<std::byte> space);
  void publish();

  LocalChannel channel_;
  RingWriter writer_;
  RingReader reader_;
  ConnectionOwner* owner_ = nullptr;
  Watch bell_watch_{*this, &ShmConnection::on_bell};
  Watch socket_watch_{*this, &ShmConnection::on_socket};
  Registration bell_registration_;
  Registration socket_registration_;
  bool closed_ = false;   // by the peer
  bool babbled_ = false;  // the peer said something on the socket
  bool retired_ = false;
  bool finished_writing_ = false;

  // Receiving: the payload in progress.
  bool in_payload_ = false;
  bool inside_ = false;  // and the owner was told so
  Into into_ = Into::nowhere;
  FrameHeader header_;
  Destination destination_;
  std::size_t padded_ = 0;  // bytes of it in the ring
  std::size_t taken_ = 0;   // of these, so many are taken out
  std::unique_ptr<std::byte[]> scratch_;
  std::size_t scratch_bytes_ = 0;

  // Sending: the frame in progress, of which `written_` bytes of the ring are filled.
  std::optional<OutFrame> frame_;
  std::size_t written_ = 0;
  std::deque<OutFrame> appended_;
  bool blocked_ = false;
};

}  // namespace reef
