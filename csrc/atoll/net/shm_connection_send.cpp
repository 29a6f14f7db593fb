// The sending half of a connection through shared memory.
#include <algorithm>
#include <cstring>
#include <utility>

#include "atoll/net/shm_connection.h"
#include "atoll/net/shm_tuning.h"

namespace reef {

namespace {

using shm::kAlignment;

std::size_t padded(std::size_t bytes) {
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

}  // namespace

bool ShmConnection::next_frame() {
  OutFrame frame;
  if (!appended_.empty()) {
    frame = std::move(appended_.front());
    appended_.pop_front();
  } else if (!owner_->take(*this, frame)) {
    return false;
  }
  frame_.emplace(std::move(frame));
  written_ = 0;
  return true;
}

// Writes as much of the frame as fits; the last bytes together with their padding.
std::size_t ShmConnection::write_some(std::span<std::byte> space) {
  std::size_t filled = 0;
  if (written_ == 0) {
    std::memcpy(space.data(), frame_->header.data(), kHeaderBytes);
    filled = kHeaderBytes;
  }
  const std::size_t done = written_ + filled - kHeaderBytes;
  const std::size_t rest = padded(frame_->payload.size()) - done;
  const std::size_t room = (space.size() - filled) / kAlignment * kAlignment;
  const std::size_t bytes = std::min({rest, room, shm::kSliceBytes});
  if (bytes > 0) {
    std::memcpy(space.data() + filled, frame_->payload.data() + done,
                std::min(bytes, frame_->payload.size() - done));
  }
  return filled + bytes;
}

void ShmConnection::publish() {
  if (writer_.publish()) {
    ring_peer();
  }
}

Status ShmConnection::flush() {
  std::size_t total = 0;
  while (true) {
    if (!frame_ && !next_frame()) {
      publish();
      blocked_ = false;
      return Unit{};
    }
    const std::size_t rest = kHeaderBytes + padded(frame_->payload.size()) - written_;
    const auto space = writer_.space(std::min(rest, shm::kSliceBytes));
    if (!space) {
      return space.error();
    }
    if (space.value().size() < std::min(rest, shm::kLeastWrite)) {
      publish();
      const auto asleep = writer_.sleep(writer_.capacity() / 2);
      if (!asleep) {
        return asleep.error();
      }
      if (asleep.value()) {
        blocked_ = true;
        return Unit{};
      }
      continue;
    }
    const std::size_t bytes = write_some(space.value());
    writer_.commit(bytes);
    owner_->sent(bytes);
    written_ += bytes;
    total += bytes;
    if (bytes == rest) {
      frame_.reset();
    }
    if (writer_.unpublished() >= shm::kPublishBytes) {
      publish();
    }
    if (total >= shm::kSendBudget) {
      publish();
      blocked_ = true;
      come_back();  // the others' turn
      return Unit{};
    }
  }
}

void ShmConnection::forget(OpId op) {
  if (in_payload_ && into_ == Into::destination && destination_.op == op) {
    into_ = Into::nowhere;
    destination_ = {};
  }
  if (frame_ && frame_->op == op) {
    if (written_ == 0) {
      frame_.reset();
    } else {
      frame_->owned.assign(frame_->payload.begin(), frame_->payload.end());
      frame_->payload = frame_->owned;
      frame_->op = 0;
    }
  }
  std::erase_if(appended_, [op](const OutFrame& frame) { return frame.op == op; });
}

}  // namespace reef
