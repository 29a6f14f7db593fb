// What the kernel has counted of a TCP connection (TCP_INFO). A value; any thread.
#pragma once

#include <cstdint>

#include "atoll/base/time.h"

namespace reef {

struct TcpFigures {
  Nanos round_trip = 0;             // smoothed; 0: not known
  std::uint64_t retransmitted = 0;  // segments since the connection began
};

// Zeros for what is no TCP socket.
[[nodiscard]] TcpFigures tcp_figures(int fd);

}  // namespace reef
