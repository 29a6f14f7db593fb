// A core's Send as a frame for a link. Any thread.
#pragma once

#include <utility>

#include "atoll/base/result.h"
#include "atoll/collective/core.h"
#include "atoll/net/send_queue.h"

namespace reef {

inline OutFrame frame_of(Send& send) {
  OutFrame frame;
  frame.header = encode_header(send.header);
  frame.owned = std::move(send.owned);
  frame.payload = frame.owned.empty() ? send.payload : frame.owned;
  frame.keep = std::move(send.keep);
  frame.op = send.op;
  check(frame.payload.size() == send.header.length, "frame_of: a header lies about its payload");
  return frame;
}

}  // namespace reef
