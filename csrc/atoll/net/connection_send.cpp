// The sending half of a connection.
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "atoll/net/connection.h"

namespace reef {

namespace {

// Frames that go out in one system call: as many small ones as fit, or one large one.
constexpr std::size_t kBatchFrames = 32;
constexpr std::size_t kBatchBytes = 64u << 10;
// Written per turn, before other sockets get theirs.
constexpr std::size_t kSendBudget = 2u << 20;

}  // namespace

void Connection::refill() {
  batch_.clear();
  head_ = 0;
  written_ = 0;
  std::size_t bytes = 0;
  OutFrame frame;
  while (batch_.size() < kBatchFrames && bytes < kBatchBytes && owner_.take(frame)) {
    bytes += frame.size();
    batch_.push_back(std::move(frame));
  }
}

void Connection::advance(std::size_t bytes) {
  written_ += bytes;
  while (head_ < batch_.size() && written_ >= batch_[head_].size()) {
    written_ -= batch_[head_].size();
    batch_[head_] = OutFrame{};  // lets go of its memory at once
    ++head_;
  }
  if (head_ == batch_.size()) {
    batch_.clear();
    head_ = 0;
  }
}

void Connection::want_write(bool want) {
  blocked_ = want;
  registration_.watch(want ? EPOLLIN | EPOLLOUT : EPOLLIN);
}

Status Connection::flush() {
  std::size_t total = 0;
  while (true) {
    if (batch_.empty()) {
      refill();
      if (batch_.empty()) {
        want_write(false);
        return Unit{};
      }
    }
    std::array<iovec, 2 * (kBatchFrames + 2)> parts;
    std::size_t count = 0;
    std::size_t wanted = 0;
    std::size_t skip = written_;
    const auto add = [&](std::span<const std::byte> bytes) {
      const std::size_t skipped = std::min(skip, bytes.size());
      skip -= skipped;
      bytes = bytes.subspan(skipped);
      if (!bytes.empty()) {
        parts[count++] = iovec{const_cast<std::byte*>(bytes.data()), bytes.size()};
        wanted += bytes.size();
      }
    };
    for (std::size_t i = head_; i < batch_.size() && count + 2 <= parts.size(); ++i) {
      add(batch_[i].header);
      add(batch_[i].payload);
    }
    msghdr message{};
    message.msg_iov = parts.data();
    message.msg_iovlen = count;
    const ssize_t sent = ::sendmsg(fd_.get(), &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0) {
      if (errno == EINTR) {
        continue;
      }
      if (errno == EAGAIN || errno == ENOBUFS) {
        want_write(true);
        return Unit{};
      }
      const int reason = errno;
      return Error{Code::io, reason, strerror(reason)};
    }
    const auto bytes = static_cast<std::size_t>(sent);
    owner_.sent(bytes);
    advance(bytes);
    total += bytes;
    if (bytes < wanted || total >= kSendBudget) {
      want_write(true);  // full, or others' turn: level-triggered, so it is heard of again
      return Unit{};
    }
  }
}

void Connection::forget(OpId op) {
  if (in_payload_ && destination_.op == op) {
    discard_ = true;
    destination_ = {};
  }
  if (batch_.empty()) {
    return;
  }
  if (batch_[head_].op == op && written_ > 0) {
    OutFrame& frame = batch_[head_];
    frame.owned.assign(frame.payload.begin(), frame.payload.end());
    frame.payload = frame.owned;
    frame.op = 0;
  }
  const auto first = batch_.begin() + static_cast<std::ptrdiff_t>(head_);
  batch_.erase(std::remove_if(first, batch_.end(),
                              [op](const OutFrame& frame) { return frame.op == op; }),
               batch_.end());
  if (head_ == batch_.size()) {
    batch_.clear();
    head_ = 0;
    written_ = 0;
  }
}

void Connection::finish_writing() {
  if (!finished_writing_) {
    finished_writing_ = true;
    ::shutdown(fd_.get(), SHUT_WR);
  }
}

void Connection::retire() {
  retired_ = true;
  registration_.reset();
}

}  // namespace reef
