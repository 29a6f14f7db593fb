// Bells, the end, and the receiving half of a connection through shared memory.
#include "atoll/net/shm_connection.h"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include "atoll/net/shm_tuning.h"

namespace reef {

namespace {

using shm::kAlignment;

// Payloads up to this size say what is to be done (descriptions, requests): they are copied before
// anybody judges them, because the peer could still change what lies in the ring.
constexpr std::size_t kJudgedBytes = 256;

void ring(const Fd& bell) {
  const std::uint64_t one = 1;
  // EAGAIN: nobody has heard 2^64 - 2 rings, but it is readable. Other failures are the peer's end,
  // which the socket tells.
  [[maybe_unused]] const ssize_t written = ::write(bell.get(), &one, sizeof one);
}

}  // namespace

ShmConnection::ShmConnection(LocalChannel channel)
    : channel_(std::move(channel)),
      writer_(channel_.memory.ring(channel_.dialled ? 0 : 1)),
      reader_(channel_.memory.ring(channel_.dialled ? 1 : 0)) {}

Status ShmConnection::start(Poller& poller, ConnectionOwner& owner) {
  owner_ = &owner;
  // Edge-triggered: each ring is heard once, and the eventfd need not be read.
  auto bell = poller.add(channel_.own_bell.get(), EPOLLIN | EPOLLET, bell_watch_);
  if (!bell) {
    return bell.error();
  }
  bell_registration_ = std::move(bell.value());
  auto socket = poller.add(channel_.socket.get(), EPOLLIN | EPOLLRDHUP, socket_watch_);
  if (!socket) {
    return socket.error();
  }
  socket_registration_ = std::move(socket.value());
  come_back();  // what has been written already rings no bell
  return Unit{};
}

// ---- bells and the end --------------------------------------------------------------------------

void ShmConnection::ring_peer() const { ring(channel_.peer_bell); }
void ShmConnection::come_back() const { ring(channel_.own_bell); }

void ShmConnection::on_bell() {
  owner_->ready(*this, EPOLLIN | (blocked_ ? EPOLLOUT : 0u));
}

void ShmConnection::on_socket() {
  std::byte something{};
  const ssize_t got = ::recv(channel_.socket.get(), &something, 1, MSG_DONTWAIT);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
    return;
  }
  babbled_ = got > 0;
  closed_ = true;
  socket_registration_.reset();
  owner_->ready(*this, EPOLLIN);
}

void ShmConnection::finish_writing() {
  if (!finished_writing_) {
    finished_writing_ = true;
    ::shutdown(channel_.socket.get(), SHUT_WR);
  }
}

void ShmConnection::retire() {
  retired_ = true;
  bell_registration_.reset();
  socket_registration_.reset();
}

bool ShmConnection::drain() {
  in_payload_ = false;
  for (std::size_t total = 0; total < shm::kReceiveBudget;) {
    const auto there = reader_.readable(1);
    if (!there) {
      return true;
    }
    const std::size_t bytes = there.value().size();
    reader_.consume(bytes);
    release();
    total += bytes;
    if (bytes == 0) {
      const auto asleep = reader_.sleep(1);
      if (!asleep || asleep.value()) {
        return !asleep || closed_;
      }
    }
  }
  come_back();
  return false;
}

// ---- receiving ----------------------------------------------------------------------------------

Status ShmConnection::receive() {
  std::size_t left = shm::kReceiveBudget;
  while (true) {
    const std::size_t before = reader_.unreleased();
    const auto missing = in_payload_ ? read_payload() : read_header();
    if (!missing) {
      return missing.error();
    }
    if (owner_->over() || retired_) {
      return Unit{};
    }
    const std::size_t taken = reader_.unreleased() - before;
    owner_->received(taken);
    if (reader_.unreleased() >= shm::kReleaseBytes || missing.value() > 0) {
      release();
    }
    if (missing.value() > 0) {
      const auto asleep = reader_.sleep(missing.value());
      if (!asleep) {
        return asleep.error();
      }
      if (asleep.value()) {
        break;
      }
    }
    if (taken >= left) {
      release();
      come_back();  // the others' turn
      return Unit{};
    }
    left -= taken;
  }
  if (babbled_) {
    return Error{Code::protocol, 0, "the peer spoke on the socket of a shared-memory link"};
  }
  if (closed_) {
    return Error{Code::io, 0, "the peer closed the connection"};
  }
  return Unit{};
}

void ShmConnection::release() {
  if (reader_.release()) {
    ring_peer();
  }
}

void ShmConnection::inside(bool now_inside) {
  if (inside_ != now_inside) {
    inside_ = now_inside;
    owner_->inside_payload(now_inside);
  }
}

Result<std::size_t> ShmConnection::read_header() {
  const auto there = reader_.readable(kHeaderBytes);
  if (!there) {
    return there.error();
  }
  if (there.value().size() < kHeaderBytes) {
    return kHeaderBytes;
  }
  HeaderBytes bytes;
  std::memcpy(bytes.data(), there.value().data(), bytes.size());
  const auto header = parse_header(bytes);
  if (!header) {
    return header.error();
  }
  reader_.consume(kHeaderBytes);
  header_ = header.value();
  if (header_.length == 0) {
    if (Status status = owner_->deliver(*this, header_, {}, false); !status.ok()) {
      return status.error();
    }
    return std::size_t{0};
  }
  destination_ = owner_->place(header_);
  if (owner_->over()) {
    return std::size_t{0};
  }
  padded_ = (header_.length + kAlignment - 1) / kAlignment * kAlignment;
  taken_ = 0;
  in_payload_ = true;
  into_ = Into::destination;
  if (destination_.span.empty() && padded_ <= reader_.capacity() / 2) {
    into_ = Into::ring;
  } else if (destination_.span.empty()) {
    if (scratch_bytes_ < header_.length) {
      scratch_ = std::make_unique_for_overwrite<std::byte[]>(header_.length);
      scratch_bytes_ = header_.length;
    }
    destination_ = {{scratch_.get(), header_.length}, 0};
  }
  check(into_ == Into::ring || destination_.span.size() == header_.length,
        "ShmConnection: place() named a span of another length than the payload's");
  return std::size_t{0};
}

Result<std::size_t> ShmConnection::read_payload() {
  if (into_ == Into::ring) {
    return read_in_place();
  }
  const std::size_t rest = padded_ - taken_;
  const auto there = reader_.readable(std::min(rest, shm::kSliceBytes));
  if (!there) {
    return there.error();
  }
  const std::size_t bytes =
      std::min({rest, shm::kSliceBytes, there.value().size() / kAlignment * kAlignment});
  if (bytes == 0) {
    inside(true);
    return std::min({rest, shm::kWakeBytes, reader_.capacity() / 2});
  }
  if (into_ == Into::destination) {
    std::memcpy(destination_.span.data() + taken_, there.value().data(),
                std::min(bytes, header_.length - taken_));
  }
  reader_.consume(bytes);
  taken_ += bytes;
  if (taken_ == padded_) {
    const std::span<const std::byte> payload = destination_.span;
    if (Status status = end_payload(payload); !status.ok()) {
      return status.error();
    }
  } else {
    inside(true);
  }
  return std::size_t{0};
}

Result<std::size_t> ShmConnection::read_in_place() {
  const auto there = reader_.readable(padded_);
  if (!there) {
    return there.error();
  }
  if (there.value().size() < padded_) {
    inside(true);
    return padded_;
  }
  std::span<const std::byte> payload = there.value().first(header_.length);
  alignas(kAlignment) std::array<std::byte, kJudgedBytes> copy;
  if (payload.size() <= copy.size()) {
    std::memcpy(copy.data(), payload.data(), payload.size());
    payload = std::span(copy).first(payload.size());
  }
  reader_.consume(padded_);
  if (Status status = end_payload(payload); !status.ok()) {
    return status.error();
  }
  return std::size_t{0};
}

Status ShmConnection::end_payload(std::span<const std::byte> payload) {
  in_payload_ = false;
  inside(false);
  destination_ = {};
  return owner_->deliver(*this, header_, payload, into_ == Into::nowhere);
}

}  // namespace reef
