#include "atoll/net/path.h"

#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "atoll/net/fd.h"
#include "atoll/topology/connections.h"

namespace reef {

namespace {

// On a long path: so much time of what the connection delivers, between these.
constexpr double kUnsentS = 0.02;
constexpr int kLeastUnsentBytes = 32 << 10;

// All zero where the kernel says nothing; older ones say less.
tcp_info info_of(int fd) {
  tcp_info info{};
  socklen_t length = sizeof info;
  if (::getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &length) != 0) return tcp_info{};
  return info;
}

bool set_congestion(int fd, const std::string& name) {
  return ::setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, name.data(),
                      static_cast<socklen_t>(name.size())) == 0;
}

}  // namespace

double round_trip_s(int fd) { return info_of(fd).tcpi_rtt * 1e-6; }

double delivered_bytes_per_s(int fd) {
  return static_cast<double>(info_of(fd).tcpi_delivery_rate);
}

PathCounts path_counts(int fd) {
  const tcp_info info = info_of(fd);
  PathCounts counts;
  counts.sent_bytes = info.tcpi_bytes_sent;
  counts.resent_bytes = info.tcpi_bytes_retrans;
  counts.acked_bytes = info.tcpi_bytes_acked + std::uint64_t{info.tcpi_sacked} * info.tcpi_snd_mss;
  counts.round_trip_s = info.tcpi_rtt * 1e-6;
  counts.least_round_trip_s = std::min(info.tcpi_min_rtt, info.tcpi_rtt) * 1e-6;
  return counts;
}

void choose_congestion(int fd, const std::string& wanted) {
  const bool automatic = wanted == kAutomatic;
  if (wanted.empty() || (automatic && round_trip_s(fd) < kLongRoundTripS)) return;
  set_congestion(fd, automatic ? "bbr" : wanted);
}

std::string congestion_of(int fd) {
  char name[16] = {};
  socklen_t length = sizeof name - 1;
  return ::getsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, name, &length) == 0 ? name : "";
}

bool has_congestion(const std::string& name) {
  const Fd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  return fd.valid() && set_congestion(fd.get(), name);
}

void renew_congestion(int fd) {
  constexpr const char* kBbr = "bbr";
  // To reno, which everybody may use, and back: a socket that is given what it has keeps its state.
  if (congestion_of(fd) == kBbr && set_congestion(fd, "reno")) set_congestion(fd, kBbr);
}

int unsent_bytes_for(double bytes_per_s) {
  const double wanted = bytes_per_s * kUnsentS;
  if (!(wanted > kLeastUnsentBytes)) return kLeastUnsentBytes;
  return static_cast<int>(std::min<double>(wanted, kUnsentBytes));
}

int limit_unsent(int fd) {
  const int bytes = unsent_bytes_for(delivered_bytes_per_s(fd));
  ::setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &bytes, sizeof bytes);
  return bytes;
}

}  // namespace reef
