#include "atoll/net/send_queue.h"

#include <algorithm>
#include <utility>

namespace reef {

bool SendQueue::take(OutFrame& frame) {
  if (!control_.empty()) {
    frame = std::move(control_.front());
    control_.pop_front();
    return true;
  }
  const bool state_is_due = data_.empty() || data_since_state_ >= kDataPerState;
  if (!donations_.empty() && state_is_due) {
    cut(frame);
    data_since_state_ = 0;
    return true;
  }
  if (!data_.empty()) {
    frame = std::move(data_.front());
    data_.pop_front();
    ++data_since_state_;
    return true;
  }
  return false;
}

void SendQueue::cut(OutFrame& frame) {
  Donation donation = std::move(donations_.front());
  donations_.pop_front();
  const std::size_t bytes = std::min(donation.rest.size(), kStateChunkBytes);
  const bool last = bytes == donation.rest.size();
  donation.header.length = static_cast<std::uint32_t>(bytes);
  donation.header.phase = last ? kLastPhase : 0;
  frame = OutFrame{};
  frame.header = encode_header(donation.header);
  frame.payload = donation.rest.first(bytes);
  frame.keep = donation.keep;
  if (!last) {
    donation.header.offset += bytes;
    donation.rest = donation.rest.subspan(bytes);
    donations_.push_back(std::move(donation));  // at the back: all requests advance alike
  }
}

void SendQueue::purge(OpId op) {
  const auto of_op = [op](const OutFrame& frame) { return frame.op == op; };
  std::erase_if(control_, of_op);
  std::erase_if(data_, of_op);
}

}  // namespace reef
