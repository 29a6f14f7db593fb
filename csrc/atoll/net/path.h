// How a connected TCP socket uses the path to the other side: what the kernel knows of it, and what it
// may be told. Any thread; nothing blocks. Best effort: a kernel that does not know an option is left
// as it is.
#pragma once

#include <cstdint>
#include <string>

#include "atoll/base/time.h"

namespace reef {

// Of a connected socket, as the kernel has measured it; 0: not known.
[[nodiscard]] double round_trip_s(int fd);
// Bytes a second that the other side has acknowledged lately, likewise.
[[nodiscard]] double delivered_bytes_per_s(int fd);
// What the kernel has counted of one connected socket, or of several together. `sent` contains what was
// `resent`, `acked` what has come behind a gap. All zero where it says nothing.
struct PathCounts {
  std::uint64_t sent_bytes = 0;
  std::uint64_t resent_bytes = 0;
  std::uint64_t acked_bytes = 0;
  double round_trip_s = 0;        // now, with the time in queues; of several: on average
  double least_round_trip_s = 0;  // ever
};
[[nodiscard]] PathCounts path_counts(int fd);
// How a socket shares its path. kAutomatic: by BBR where the path is long and the system has it, because
// it neither takes a lost packet for a full line nor begins anew after a pause; "": as the system does;
// else by name.
inline constexpr const char* kAutomatic = "auto";
void choose_congestion(int fd, const std::string& wanted);
// The congestion control that a socket has; "" when it cannot be told.
[[nodiscard]] std::string congestion_of(int fd);
[[nodiscard]] bool has_congestion(const std::string& name);
// For connections that somebody else keeps to a pace. BBR lets its window go down to four packets every 10 s, for
// 0.2 s and a round trip, to see the path without a queue; all connections of a job soon do so at the same time. Begun
// anew before that it does not, and leaves the pace alone. Any other control is left as it is.
void renew_congestion(int fd);
inline constexpr Nanos kRenewEvery = 4 * kSecond;
// Unsent bytes that the kernel keeps for one socket. What is in the kernel can no longer be overtaken
// by something urgent, nor be sent on another connection; much less than this and the kernel runs dry
// between two wake-ups of the reactor.
inline constexpr int kUnsentBytes = 1 << 20;
// Of a connection on a long path: bytes that may wait unsent in the kernel, so that it does not run
// dry between two turns of the reactor and yet little waits behind a connection that is slow. From
// what the kernel says that it delivers; 0: nothing is known yet.
[[nodiscard]] int unsent_bytes_for(double bytes_per_s);
// Sets that for this socket, and returns it.
int limit_unsent(int fd);

}  // namespace reef
