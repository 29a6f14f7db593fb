// The sending half of a connection.
#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

#include "atoll/net/path.h"
#include "atoll/net/stream_connection.h"

namespace reef {

namespace {

// Frames that go out in one system call: as many small ones as fit, or one large one.
constexpr std::size_t kBatchFrames = 32;
constexpr std::size_t kBatchBytes = 512u << 10;
// On a long path the portion is looked at again after so many of it.
constexpr std::size_t kPortions = 16;
// Written per turn, before other sockets get theirs.
constexpr std::size_t kSendBudget = 2u << 20;

}  // namespace

void StreamConnection::append(OutFrame frame) {
  if (checksums_) {
    seal(frame.header, frame.payload);
  }
  batch_.push_back(std::move(frame));
}

void StreamConnection::refill() {
  batch_.clear();
  head_ = 0;
  written_ = 0;
  std::size_t bytes = 0;
  const std::size_t most = portion_ != 0 ? std::min(portion_, kBatchBytes) : kBatchBytes;
  OutFrame frame;
  while (batch_.size() < kBatchFrames && bytes < most && owner_->take(*this, frame)) {
    bytes += frame.size();
    append(std::move(frame));
  }
}

void StreamConnection::advance(std::size_t bytes) {
  written_ += bytes;
  while (head_ < batch_.size() && written_ >= batch_[head_].size()) {
    written_ -= batch_[head_].size();
    owner_->wrote(*this, std::exchange(batch_[head_], OutFrame{}));
    ++head_;
  }
  if (head_ == batch_.size()) {
    batch_.clear();
    head_ = 0;
  }
}

void StreamConnection::adapt() {
  portion_ = static_cast<std::size_t>(limit_unsent(stream_->fd()));
  sent_since_ = 0;
}

PathCounts StreamConnection::path() const {
  return portion_ != 0 ? path_counts(stream_->fd()) : PathCounts{};
}

void StreamConnection::renew() {
  if (portion_ != 0) renew_congestion(stream_->fd());
}

void StreamConnection::want_write(bool want) {
  blocked_ = want;
  registration_.watch(want ? EPOLLIN | EPOLLOUT : EPOLLIN);
}

Status StreamConnection::flush() {
  std::size_t total = 0;
  while (true) {
    if (batch_.empty()) {
      refill();
    }
    if (batch_.empty()) {
      const IoResult rest = stream_->flush();
      if (rest.error != 0 && rest.error != EAGAIN) {
        return Error{Code::io, rest.error, stream_->explain(rest.error)};
      }
      want_write(stream_->holds_output());
      return Unit{};
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
    const IoResult sent = stream_->write(std::span(parts).first(count));
    if (sent.error == EAGAIN) {
      want_write(true);
      return Unit{};
    }
    if (sent.error != 0) {
      return Error{Code::io, sent.error, stream_->explain(sent.error)};
    }
    const std::size_t bytes = sent.bytes;
    owner_->sent(bytes);
    sent_since_ += bytes;
    if (portion_ != 0 && sent_since_ >= kPortions * portion_) {
      adapt();
    }
    advance(bytes);
    total += bytes;
    if (bytes < wanted || total >= kSendBudget) {
      want_write(true);  // full, or others' turn: level-triggered, so it is heard of again
      return Unit{};
    }
  }
}

void StreamConnection::forget(OpId op) {
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

void StreamConnection::finish_writing() {
  if (!finished_writing_) {
    finished_writing_ = true;
    stream_->finish_writing();
  }
}

void StreamConnection::retire() {
  retired_ = true;
  registration_.reset();
}

// The stream itself stays until this object goes, because its calls may be on the stack.
void StreamConnection::cut() {
  retire();
  ::shutdown(stream_->fd(), SHUT_RDWR);
  if (std::exchange(in_payload_, false)) {
    owner_->inside_payload(false);
    owner_->displaced(header_);
  }
}

std::vector<OutFrame> StreamConnection::reclaim() {
  batch_.erase(batch_.begin(), batch_.begin() + static_cast<std::ptrdiff_t>(head_));
  head_ = 0;
  written_ = 0;
  return std::exchange(batch_, {});
}

}  // namespace reef
