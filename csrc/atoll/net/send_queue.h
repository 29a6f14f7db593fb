// What one link still has to send, in three lanes. The reactor thread only.
//
// Control frames go first. Shared state, which a joiner asks for, goes last, but one of its frames
// goes out after every kDataPerState of data, so that it is not starved. State is not queued as
// frames: a donation is cut into frames one by one, as they are taken.
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
  void push_data(OutFrame frame) { data_.push_back(std::move(frame)); }
  void push_donation(Donation donation) { donations_.push_back(std::move(donation)); }

  void drop_donations() { donations_.clear(); }

  [[nodiscard]] bool empty() const {
    return control_.empty() && data_.empty() && donations_.empty();
  }
  [[nodiscard]] std::size_t donations() const { return donations_.size(); }
  // Takes the frame that is next; false when there is none.
  bool take(OutFrame& frame);
  // Drops the frames whose payload lies in this op's buffer.
  void purge(OpId op);

 private:
  void cut(OutFrame& frame);
  std::deque<OutFrame> control_;
  std::deque<OutFrame> data_;
  std::deque<Donation> donations_;
  std::uint32_t data_since_state_ = 0;
};

}  // namespace reef
