// A connection over a byte stream: a socket, with or without TLS. The reactor thread only.
//
// Payloads go from the stream into the memory that place() names and from the sender's buffer into
// the stream, without a copy in between; only what arrives together with a header passes through a
// small buffer.
#pragma once

#include <array>
#include <cstddef>
#include <memory>
#include <span>
#include <vector>

#include "atoll/net/connection.h"
#include "atoll/net/poller.h"
#include "atoll/net/stream.h"
#include "atoll/wire/checksum.h"

namespace reef {

class StreamConnection final : public Connection, public Ready {
 public:
  // With `checksums` every frame carries them, and one that is damaged is an error: io, EBADMSG.
  explicit StreamConnection(std::unique_ptr<Stream> stream, bool checksums = false);
  StreamConnection(const StreamConnection&) = delete;
  StreamConnection& operator=(const StreamConnection&) = delete;

  void on_ready(std::uint32_t events) override { owner_->ready(*this, events); }

  Status start(Poller& poller, ConnectionOwner& owner) override;
  Status receive() override;
  Status flush() override;
  void forget(OpId op) override;
  void append(OutFrame frame) override;
  [[nodiscard]] bool writing() const override {
    return !batch_.empty() || stream_->holds_output();
  }
  [[nodiscard]] bool blocked() const override { return blocked_; }
  [[nodiscard]] bool unread() const override { return stream_->holds_input(); }
  bool drain() override;
  void finish_writing() override;
  void retire() override;
  [[nodiscard]] bool retired() const override { return retired_; }
  [[nodiscard]] bool replaceable() const override { return true; }
  void cut() override;
  [[nodiscard]] TcpFigures figures() const override { return tcp_figures(stream_->fd()); }
  std::vector<OutFrame> reclaim() override;
  [[nodiscard]] PathCounts path() const override;
  void renew() override;

 private:
  Status parse();
  Status begin_frame();
  Status absorb();
  std::span<std::byte> scratch(std::size_t bytes);
  Result<FrameHeader> next_header();
  void refill();
  void advance(std::size_t bytes);
  void want_write(bool want);
  void adapt();

  // Holds a dozen small frames, and little of a large payload is copied through it.
  static constexpr std::size_t kBufferBytes = 16u << 10;

  ConnectionOwner* owner_ = nullptr;
  std::unique_ptr<Stream> stream_;
  bool checksums_;
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
  Sealed sealed_;
  Destination destination_;
  std::size_t filled_ = 0;
  std::unique_ptr<std::byte[]> scratch_;
  std::size_t scratch_bytes_ = 0;

  // Sending. The first frame of batch_ from head_ on has `written_` bytes out.
  std::vector<OutFrame> batch_;
  std::size_t head_ = 0;
  std::size_t written_ = 0;
  bool blocked_ = false;
  // On a long path frames are taken, and bytes given to the kernel, in small portions, so that little
  // waits behind a connection that is slow. 0: the path is short.
  std::size_t portion_ = 0;
  std::size_t sent_since_ = 0;  // since the portion was last looked at
};

}  // namespace reef
