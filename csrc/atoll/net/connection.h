// One TCP connection of a link that is up: frames in, frames out. The reactor thread only.
//
// Owned by its Link, which is told of everything. Payloads go from the socket into the memory that
// place() names and from the sender's buffer into the socket, without a copy in between; only what
// arrives together with a header passes through a small buffer.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "atoll/base/ids.h"
#include "atoll/base/result.h"
#include "atoll/base/time.h"
#include "atoll/net/fd.h"
#include "atoll/net/poller.h"
#include "atoll/net/send_queue.h"
#include "atoll/wire/frame.h"

namespace reef {

class Connection;

// Where a payload is to be received. Empty span: into memory of the connection's own.
struct Destination {
  std::span<std::byte> span;
  OpId op = 0;  // whose memory
};

// What a connection asks of its link. Any call may end the link: look at over() afterwards.
class ConnectionOwner {
 public:
  virtual Destination place(const FrameHeader& header) = 0;
  virtual Status deliver(const FrameHeader& header, std::span<const std::byte> payload) = 0;
  virtual bool take(OutFrame& frame) = 0;
  virtual void ready(Connection& connection, std::uint32_t events) = 0;
  virtual void received(std::size_t bytes) = 0;
  virtual void sent(std::size_t bytes) = 0;
  virtual void inside_payload(bool inside) = 0;
  [[nodiscard]] virtual bool over() const = 0;

 protected:
  ~ConnectionOwner() = default;
};

class Connection final : public Ready {
 public:
  static Result<std::unique_ptr<Connection>> create(Poller& poller, Fd fd, ConnectionOwner& owner);
  ~Connection() = default;
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  void on_ready(std::uint32_t events) override { owner_.ready(*this, events); }

  // Reads what is there, up to a bound, and delivers whole frames. Error: io (closed or failed) or
  // protocol.
  Status receive();
  // Writes until the socket is full, there is nothing left, or a bound is reached.
  Status flush();
  // From now on this op's buffers are not touched: what is half written is copied, what is half
  // received is thrown away.
  void forget(OpId op);
  // Puts a frame behind those that this connection has already taken.
  void append(OutFrame frame) { batch_.push_back(std::move(frame)); }
  [[nodiscard]] bool writing() const { return !batch_.empty(); }
  [[nodiscard]] bool blocked() const { return blocked_; }

  // Towards the end. drain() throws away what arrives, and is true at the end of file;
  // finish_writing() sends a FIN. A retired connection does nothing and hears nothing any more.
  bool drain();
  void finish_writing();
  void retire();
  [[nodiscard]] bool retired() const { return retired_; }

  Nanos last_sent = 0;

 private:
  Connection(Fd fd, ConnectionOwner& owner);
  Status parse();
  Status begin_frame();
  Status absorb();
  std::span<std::byte> scratch(std::size_t bytes);
  void refill();
  void advance(std::size_t bytes);
  void want_write(bool want);

  // Holds a dozen small frames, and little of a large payload is copied through it.
  static constexpr std::size_t kBufferBytes = 16u << 10;

  ConnectionOwner& owner_;
  Fd fd_;
  Registration registration_;
  bool retired_ = false;
  bool finished_writing_ = false;

  // Receiving. buffer_[begin_, end_) is unparsed; empty while a payload is in progress.
  std::unique_ptr<std::byte[]> buffer_;
  std::size_t begin_ = 0;
  std::size_t end_ = 0;
  bool in_payload_ = false;
  bool discard_ = false;
  FrameHeader header_;
  Destination destination_;
  std::size_t filled_ = 0;
  std::unique_ptr<std::byte[]> scratch_;
  std::size_t scratch_bytes_ = 0;

  // Sending. The first frame of batch_ from head_ on has `written_` bytes out.
  std::vector<OutFrame> batch_;
  std::size_t head_ = 0;
  std::size_t written_ = 0;
  bool blocked_ = false;
};

}  // namespace reef
