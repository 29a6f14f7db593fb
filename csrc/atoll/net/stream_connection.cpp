// The receiving half of a connection.
#include "atoll/net/stream_connection.h"

#include <sys/epoll.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "atoll/base/limits.h"
#include "atoll/net/path.h"
#include "atoll/topology/connections.h"

namespace reef {

namespace {

// Read per turn, before other sockets get theirs.
constexpr std::size_t kReceiveBudget = 2u << 20;
// A payload is handed on in place only where numbers of any type may be read.
constexpr std::uintptr_t kAlignment = 16;

Error damaged() { return Error{Code::io, EBADMSG, "a frame arrived damaged"}; }

bool aligned(const std::byte* at) {
  return reinterpret_cast<std::uintptr_t>(at) % kAlignment == 0;
}

}  // namespace

StreamConnection::StreamConnection(std::unique_ptr<Stream> stream, bool checksums)
    : stream_(std::move(stream)), checksums_(checksums), buffer_(new std::byte[kBufferBytes]) {}

Status StreamConnection::start(Poller& poller, ConnectionOwner& owner) {
  owner_ = &owner;
  blocked_ = stream_->holds_output();
  auto registration = poller.add(stream_->fd(), blocked_ ? EPOLLIN | EPOLLOUT : EPOLLIN, *this);
  if (!registration) {
    return registration.error();
  }
  registration_ = std::move(registration.value());
  if (round_trip_s(stream_->fd()) >= kLongRoundTripS) {
    adapt();
  }
  return Unit{};
}

std::span<std::byte> StreamConnection::scratch(std::size_t bytes) {
  if (scratch_bytes_ < bytes) {
    scratch_ = std::make_unique_for_overwrite<std::byte[]>(bytes);
    scratch_bytes_ = bytes;
  }
  return {scratch_.get(), bytes};
}

Status StreamConnection::receive() {
  std::size_t total = 0;
  while (total < kReceiveBudget || stream_->holds_input()) {
    std::array<iovec, 2> parts;
    std::size_t count = 0;
    std::size_t direct = 0;
    if (in_payload_ && !discard_) {
      direct = header_.length - filled_;
      parts[count++] = iovec{destination_.span.data() + filled_, direct};
    }
    const std::size_t room = kBufferBytes - end_;
    parts[count++] = iovec{buffer_.get() + end_, room};
    // Beyond the budget only what the stream holds, of which the poller knows nothing.
    const auto into = std::span(parts).first(count);
    const IoResult got =
        total < kReceiveBudget ? stream_->read(into) : stream_->read_held(into);
    if (got.error != 0) {
      return got.error == EAGAIN
                 ? Status(Unit{})
                 : Status(Error{Code::io, got.error, stream_->explain(got.error)});
    }
    if (got.bytes == 0) {
      return Error{Code::io, 0, "the peer closed the connection"};
    }
    const std::size_t bytes = got.bytes;
    owner_->received(bytes);
    total += bytes;
    filled_ += std::min(bytes, direct);
    end_ += bytes - std::min(bytes, direct);
    if (Status status = parse(); !status.ok() || owner_->over() || retired_) {
      return status;
    }
    if (bytes < direct + room) {
      return Unit{};  // the socket is empty, or epoll says so again
    }
  }
  return Unit{};
}

Status StreamConnection::parse() {
  bool waiting = false;
  while (!waiting) {
    if (in_payload_) {
      if (Status status = absorb(); !status.ok()) {
        return status;
      }
      waiting = in_payload_;
    } else if (end_ - begin_ < kHeaderBytes) {
      waiting = true;
    } else if (Status status = begin_frame(); !status.ok()) {
      return status;
    }
    if (owner_->over() || retired_) {
      return Unit{};
    }
  }
  // What is left is less than a header: make room behind it.
  std::memmove(buffer_.get(), buffer_.get() + begin_, end_ - begin_);
  end_ -= begin_;
  begin_ = 0;
  return Unit{};
}

// Takes what the buffer holds of the payload in progress, and delivers the frame when it is whole.
Status StreamConnection::absorb() {
  const std::size_t bytes = std::min(header_.length - filled_, end_ - begin_);
  if (bytes > 0 && !discard_) {
    std::memcpy(destination_.span.data() + filled_, buffer_.get() + begin_, bytes);
  }
  filled_ += bytes;
  begin_ += bytes;
  if (filled_ < header_.length) {
    return Unit{};
  }
  if (checksums_ && !discard_ && !sealed_.holds(destination_.span)) {
    return damaged();  // still in a payload: cut() says that it was displaced
  }
  in_payload_ = false;
  owner_->inside_payload(false);
  const std::span<const std::byte> payload = destination_.span;
  destination_ = {};
  return owner_->deliver(*this, header_, payload, discard_);
}

// The payload is placed where its header says: the header's own bits come first.
Result<FrameHeader> StreamConnection::next_header() {
  const std::span<const std::byte, kHeaderBytes> bytes(buffer_.get() + begin_, kHeaderBytes);
  if (!checksums_) {
    return parse_header(bytes);
  }
  if (!unseal(bytes, sealed_)) {
    return damaged();
  }
  return parse_header(sealed_.header);
}

Status StreamConnection::begin_frame() {
  const auto header = next_header();
  if (!header) {
    return header.error();
  }
  begin_ += kHeaderBytes;
  header_ = header.value();
  if (header_.length == 0 && checksums_ && !sealed_.holds({})) {
    return damaged();
  }
  if (header_.length == 0) {
    return owner_->deliver(*this, header_, {}, false);
  }
  destination_ = owner_->place(header_);
  if (owner_->over()) {
    return Unit{};
  }
  const std::byte* at = buffer_.get() + begin_;
  if (destination_.span.empty()) {
    if (end_ - begin_ >= header_.length && aligned(at)) {
      begin_ += header_.length;
      if (checksums_ && !sealed_.holds({at, header_.length})) {
        owner_->displaced(header_);
        return damaged();
      }
      return owner_->deliver(*this, header_, {at, header_.length}, false);
    }
    destination_ = {scratch(header_.length), 0};
  }
  check(destination_.span.size() == header_.length,
        "StreamConnection: place() named a span of another length than the payload's");
  in_payload_ = true;
  discard_ = false;
  filled_ = 0;
  owner_->inside_payload(true);
  return Unit{};
}

bool StreamConnection::drain() {
  std::size_t total = 0;
  while (total < kReceiveBudget) {
    const IoResult got = read_some(*stream_, {buffer_.get(), kBufferBytes});
    if (got.bytes == 0) {
      return got.error != EAGAIN;
    }
    total += got.bytes;
  }
  return false;
}

}  // namespace reef
