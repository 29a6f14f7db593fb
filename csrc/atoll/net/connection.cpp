// The receiving half of a connection.
#include "atoll/net/connection.h"

#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "atoll/base/limits.h"

namespace reef {

namespace {

// Read per turn, before other sockets get theirs.
constexpr std::size_t kReceiveBudget = 2u << 20;
// A payload is handed on in place only where numbers of any type may be read.
constexpr std::uintptr_t kAlignment = 16;

bool aligned(const std::byte* at) {
  return reinterpret_cast<std::uintptr_t>(at) % kAlignment == 0;
}

}  // namespace

Connection::Connection(Fd fd, ConnectionOwner& owner)
    : owner_(owner), fd_(std::move(fd)), buffer_(new std::byte[kBufferBytes]) {}

Result<std::unique_ptr<Connection>> Connection::create(Poller& poller, Fd fd,
                                                       ConnectionOwner& owner) {
  std::unique_ptr<Connection> connection(new Connection(std::move(fd), owner));
  auto registration = poller.add(connection->fd_.get(), EPOLLIN, *connection);
  if (!registration) {
    return registration.error();
  }
  connection->registration_ = std::move(registration.value());
  return connection;
}

std::span<std::byte> Connection::scratch(std::size_t bytes) {
  if (scratch_bytes_ < bytes) {
    scratch_ = std::make_unique_for_overwrite<std::byte[]>(bytes);
    scratch_bytes_ = bytes;
  }
  return {scratch_.get(), bytes};
}

Status Connection::receive() {
  std::size_t total = 0;
  while (total < kReceiveBudget) {
    iovec parts[2];
    int count = 0;
    std::size_t direct = 0;
    if (in_payload_ && !discard_) {
      direct = header_.length - filled_;
      parts[count++] = iovec{destination_.span.data() + filled_, direct};
    }
    const std::size_t room = kBufferBytes - end_;
    parts[count++] = iovec{buffer_.get() + end_, room};
    const ssize_t got = ::readv(fd_.get(), parts, count);
    if (got < 0) {
      if (errno == EINTR) {
        continue;
      }
      if (errno == EAGAIN) {
        return Unit{};
      }
      const int reason = errno;
      return Error{Code::io, reason, strerror(reason)};
    }
    if (got == 0) {
      return Error{Code::io, 0, "the peer closed the connection"};
    }
    const auto bytes = static_cast<std::size_t>(got);
    owner_.received(bytes);
    total += bytes;
    filled_ += std::min(bytes, direct);
    end_ += bytes - std::min(bytes, direct);
    if (Status status = parse(); !status.ok() || owner_.over() || retired_) {
      return status;
    }
    if (bytes < direct + room) {
      return Unit{};  // the socket is empty, or epoll says so again
    }
  }
  return Unit{};
}

Status Connection::parse() {
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
    if (owner_.over() || retired_) {
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
Status Connection::absorb() {
  const std::size_t bytes = std::min(header_.length - filled_, end_ - begin_);
  if (bytes > 0 && !discard_) {
    std::memcpy(destination_.span.data() + filled_, buffer_.get() + begin_, bytes);
  }
  filled_ += bytes;
  begin_ += bytes;
  if (filled_ < header_.length) {
    return Unit{};
  }
  in_payload_ = false;
  owner_.inside_payload(false);
  if (discard_) {
    return Unit{};
  }
  const std::span<const std::byte> payload = destination_.span;
  destination_ = {};
  return owner_.deliver(header_, payload);
}

Status Connection::begin_frame() {
  const auto header = parse_header({buffer_.get() + begin_, kHeaderBytes});
  if (!header) {
    return header.error();
  }
  begin_ += kHeaderBytes;
  header_ = header.value();
  if (header_.length == 0) {
    return owner_.deliver(header_, {});
  }
  destination_ = owner_.place(header_);
  if (owner_.over()) {
    return Unit{};
  }
  const std::byte* at = buffer_.get() + begin_;
  if (destination_.span.empty()) {
    if (end_ - begin_ >= header_.length && aligned(at)) {
      begin_ += header_.length;
      return owner_.deliver(header_, {at, header_.length});
    }
    destination_ = {scratch(header_.length), 0};
  }
  check(destination_.span.size() == header_.length,
        "Connection: place() named a span of another length than the payload's");
  in_payload_ = true;
  discard_ = false;
  filled_ = 0;
  owner_.inside_payload(true);
  return Unit{};
}

bool Connection::drain() {
  std::size_t total = 0;
  while (total < kReceiveBudget) {
    const ssize_t got = ::recv(fd_.get(), buffer_.get(), kBufferBytes, MSG_DONTWAIT);
    if (got < 0 && errno == EINTR) {
      continue;
    }
    if (got <= 0) {
      return got == 0 || errno != EAGAIN;
    }
    total += static_cast<std::size_t>(got);
  }
  return false;
}

}  // namespace reef
