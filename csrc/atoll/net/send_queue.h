// What one link still has to send, in four lanes. The reactor thread only.
//
// Control frames go first. Shared state, which a joiner asks for, goes last, but one of its frames
// goes out after every kDataPerState of data, so that it is not starved. Neither data nor state is
// queued as frames: data is pulled from its owner, and a donation is cut into frames, one by one as
// they are taken, so that what a link holds is bounded. Filler, which measures the link, goes only
// when there is nothing else; who sends it bounds it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <vector>

#include "atoll/base/ids.h"
#include "atoll/wire/frame.h"

namespace reef {

// One frame on its way out. Its payload lies in an op's buffer (named by `op`), in `owned`, or in
// memory that `keep` holds.
struct OutFrame {
  HeaderBytes header{};
  std::span<const std::byte> payload;
  std::vector<std::byte> owned;
  OpId op = 0;
  std::shared_ptr<const void> keep;

  [[nodiscard]] std::size_t size() const { return header.size() + payload.size(); }
};

// A part of a published buffer on its way to a joiner.
struct Donation {
  FrameHeader header;  // as of the next frame: offset moves on
  std::span<const std::byte> rest;
  std::shared_ptr<const void> keep;
};

class SendQueue {
 public:
  static constexpr std::uint32_t kDataPerState = 8;
  static constexpr std::size_t kStateChunkBytes = 256u << 10;
  // `phase` of the last STATE_DATA frame of an answer, by which its length is known.
  static constexpr std::uint16_t kLastPhase = 1;

  void push_control(OutFrame frame) { control_.push_back(std::move(frame)); }
  void data_waiting() { data_waiting_ = true; }
  void push_donation(Donation donation) { donations_.push_back(std::move(donation)); }

  void push_filler(OutFrame frame) { filler_.push_back(std::move(frame)); }

  void drop_donations() { donations_.clear(); }
  void drop_filler() { filler_.clear(); }

  [[nodiscard]] bool empty() const {
    return control_.empty() && !data_waiting_ && donations_.empty() && filler_.empty();
  }
  [[nodiscard]] std::size_t donations() const { return donations_.size(); }
  // Takes the frame that is next; false when there is none. pull(frame) gives the next data frame,
  // or false when there is none.
  template <typename Pull>
  bool take(OutFrame& frame, Pull pull) {
    if (!control_.empty()) {
      frame = std::move(control_.front());
      control_.pop_front();
      return true;
    }
    const bool state_is_due = data_since_state_ >= kDataPerState && !donations_.empty();
    if (data_waiting_ && !state_is_due) {
      if (pull(frame)) {
        ++data_since_state_;
        return true;
      }
      data_waiting_ = false;
    }
    if (donations_.empty()) {
      if (filler_.empty()) return false;
      frame = std::move(filler_.front());
      filler_.pop_front();
      return true;
    }
    cut(frame);
    data_since_state_ = 0;
    return true;
  }
  // Drops the frames whose payload lies in this op's buffer.
  void purge(OpId op);

 private:
  void cut(OutFrame& frame);
  std::deque<OutFrame> control_;
  std::deque<Donation> donations_;
  std::deque<OutFrame> filler_;
  bool data_waiting_ = false;
  std::uint32_t data_since_state_ = 0;
};

}  // namespace reef
