#include "atoll/net/send_queue.h"

#include <algorithm>
#include <utility>

namespace reef {

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
  std::erase_if(control_, [op](const OutFrame& frame) { return frame.op == op; });
}

}  // namespace reef
