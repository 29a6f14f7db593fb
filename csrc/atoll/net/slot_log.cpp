#include "atoll/net/slot_log.h"

#include <algorithm>
#include <iterator>
#include <string>
#include <utility>

namespace reef {

namespace {

bool counts(const OutFrame& frame) {
  return frame.header[3] != static_cast<std::byte>(FrameType::heartbeat);
}

// In place of a frame whose op was forgotten: it is counted, and never sent again.
bool is_shell(const OutFrame& frame) { return frame.header[0] == std::byte{0}; }

}  // namespace

bool SlotLog::take_again(OutFrame& frame) {
  if (again_.empty()) {
    return false;
  }
  frame = std::move(again_.front());
  again_.pop_front();
  return true;
}

void SlotLog::wrote(OutFrame frame) {
  if (counts(frame)) {
    kept_bytes_ += frame.payload.size();
    kept_.push_back(std::move(frame));
  }
}

void SlotLog::drop_first(std::uint64_t count) {
  for (; count > 0; --count) {
    kept_bytes_ -= kept_.front().payload.size();
    kept_.pop_front();
    ++dropped_;
  }
}

Status SlotLog::acknowledged(std::uint64_t received) {
  if (received < dropped_ || received - dropped_ > kept_.size()) {
    return Error{Code::protocol, 0,
                 "the peer says that it has " + std::to_string(received) + " frames; " +
                     std::to_string(dropped_) + " to " + std::to_string(dropped_ + kept_.size()) +
                     " are possible"};
  }
  drop_first(received - dropped_);
  return Unit{};
}

void SlotLog::forget(OpId op) {
  for (OutFrame& frame : kept_) {
    if (frame.op == op) {
      kept_bytes_ -= frame.payload.size();
      frame = OutFrame{};
    }
  }
  std::erase_if(again_, [op](const OutFrame& frame) { return frame.op == op; });
}

void SlotLog::lost(std::vector<OutFrame> unsent) {
  std::erase_if(unsent, [](const OutFrame& frame) { return !counts(frame); });
  again_.insert(again_.begin(), std::make_move_iterator(unsent.begin()),
                std::make_move_iterator(unsent.end()));
}

Status SlotLog::resume(std::uint64_t received) {
  if (Status status = acknowledged(received); !status.ok()) {
    return status;
  }
  std::erase_if(kept_, is_shell);
  again_.insert(again_.begin(), std::make_move_iterator(kept_.begin()),
                std::make_move_iterator(kept_.end()));
  kept_.clear();
  kept_bytes_ = 0;
  unacknowledged_bytes_ = 0;
  return Unit{};
}

void SlotLog::arrived(std::size_t bytes) {
  ++received_;
  unacknowledged_bytes_ += bytes;
}

}  // namespace reef
