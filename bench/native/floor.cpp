// What the kernel's loopback allows: the bytes of an all-reduce between N processes over TCP, and
// nothing else. No frames, no sums, no notices: the floor under any all-reduce over these sockets.
//
//   floor --members 4 --bytes 16777216 [--connections 2] [--iterations 9] [--warm-up 3]
//         [--slice 1048576] [--spin-us 0] [--send-buffer 0] [--timeout-s 120]
//
// The pattern is the direct plan's. Each process owns one part of the vector: it sends every other
// process's part to it (phase 1), and its own part to all (phase 2), 2 (N-1)/N of the vector in
// all. A byte of phase 2 may leave when that byte of phase 1 has come from everybody. Prints one
// line of JSON; an error is one line on stderr and exit code 1, wrong usage 2.
//
// Each process is one thread around an edge-triggered epoll. The parent only starts, watches and
// counts; every child ends with it or by its own alarm clock.
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "floor_settings.h"

using namespace reef::floor;

namespace {

double seconds_now() {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration<double>(now).count();
}

// Memory that has been written, so that no page fault is measured; huge pages where they are had.
char* touched(std::uint64_t bytes, int flags = MAP_PRIVATE) {
  const std::uint64_t size = std::max<std::uint64_t>(bytes, 1);
  void* at = mmap(nullptr, size, PROT_READ | PROT_WRITE, flags | MAP_ANONYMOUS, -1, 0);
  if (at == MAP_FAILED) die_of_errno("no memory for " + std::to_string(bytes) + " bytes");
  if (flags == MAP_PRIVATE) madvise(at, size, MADV_HUGEPAGE);
  std::memset(at, 1, size);
  return static_cast<char*>(at);
}

// What a process found out, in memory that it shares with the parent.
struct Report {
  double cpu_s;
  std::int64_t sent_bytes;
  std::int64_t calls;     // send, recv and epoll_wait, in the measured iterations
  std::int64_t sleeps;    // voluntary context switches in them
  double times_s[];       // one an iteration
};

// ---- sockets ------------------------------------------------------------------------------------

struct Listener {
  int fd = -1;
  sockaddr_in address{};
};

Listener listen_on_loopback(std::uint64_t backlog) {
  Listener listener;
  listener.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  listener.address.sin_family = AF_INET;
  listener.address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  auto* address = reinterpret_cast<sockaddr*>(&listener.address);
  socklen_t length = sizeof listener.address;
  if (listener.fd < 0 || bind(listener.fd, address, length) != 0 ||
      listen(listener.fd, static_cast<int>(backlog)) != 0 ||
      getsockname(listener.fd, address, &length) != 0) {
    die_of_errno("cannot listen on 127.0.0.1");
  }
  return listener;
}

struct Name {
  std::uint32_t rank;
  std::uint32_t lane;
};

// One direction pair between this process and another, on one connection.
struct Stream {
  int fd = -1;
  std::uint64_t peer = 0;
  std::uint64_t lane = 0;
  bool readable = true;
  bool writable = true;
  // Where this lane's bytes lie: own part as it comes from the peer (phase 1), the peer's part.
  char* out_first = nullptr;
  char* out_second = nullptr;
  char* in_first = nullptr;
  char* in_second = nullptr;
  std::uint64_t own_bytes = 0;   // of the lane in the own part
  std::uint64_t peer_bytes = 0;  // of the lane in the peer's part
  std::uint64_t sent = 0;
  std::uint64_t received = 0;
};

class Process {
 public:
  Process(const Settings& settings, std::uint64_t rank, const std::vector<Listener>& listeners)
      : settings_(settings), rank_(rank), used_(settings.connections) {
    const std::uint64_t part = settings.bytes / settings.members;
    used_ = std::clamp<std::uint64_t>(part / kLaneBytes, 1, settings.connections);
    connect_all(listeners);
    lay_out();
  }

  void run(Report& report) {
    for (std::uint64_t i = 0; i < settings_.warm_up; ++i) exchange();
    calls_ = 0;
    rusage before{};
    rusage after{};
    getrusage(RUSAGE_SELF, &before);
    for (std::uint64_t i = 0; i < settings_.iterations; ++i) {
      const double start = seconds_now();
      exchange();
      report.times_s[i] = seconds_now() - start;
    }
    getrusage(RUSAGE_SELF, &after);
    const auto cpu = [](const rusage& usage) {
      return static_cast<double>(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
             static_cast<double>(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1e-6;
    };
    report.cpu_s = cpu(after) - cpu(before);
    report.sleeps = after.ru_nvcsw - before.ru_nvcsw;
    report.calls = calls_;
    for (const Stream& stream : streams_) {
      report.sent_bytes += static_cast<std::int64_t>(stream.own_bytes + stream.peer_bytes);
    }
  }

 private:
  [[nodiscard]] std::uint64_t begin(std::uint64_t part) const {
    return settings_.bytes * part / settings_.members;
  }
  [[nodiscard]] std::uint64_t lane_begin(std::uint64_t part, std::uint64_t lane) const {
    return begin(part) + (begin(part + 1) - begin(part)) * lane / used_;
  }

  void connect_all(const std::vector<Listener>& listeners) {
    epoll_ = epoll_create1(EPOLL_CLOEXEC);
    if (epoll_ < 0) die_of_errno("epoll_create1");
    for (std::uint64_t peer = 0; peer < rank_; ++peer) {
      for (std::uint64_t lane = 0; lane < settings_.connections; ++lane) {
        const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        const auto* to = reinterpret_cast<const sockaddr*>(&listeners[peer].address);
        const Name name{static_cast<std::uint32_t>(rank_), static_cast<std::uint32_t>(lane)};
        if (fd < 0 || ::connect(fd, to, sizeof(sockaddr_in)) != 0 ||
            send(fd, &name, sizeof name, MSG_NOSIGNAL) != sizeof name) {
          die_of_errno("cannot connect on loopback");
        }
        adopt(fd, peer, lane);
      }
    }
    const std::uint64_t younger = settings_.members - 1 - rank_;
    for (std::uint64_t i = 0; i < younger * settings_.connections; ++i) {
      const int fd = accept4(listeners[rank_].fd, nullptr, nullptr, SOCK_CLOEXEC);
      Name name{};
      if (fd < 0 || recv(fd, &name, sizeof name, MSG_WAITALL) != sizeof name) {
        die_of_errno("cannot accept on loopback");
      }
      adopt(fd, name.rank, name.lane);
    }
    for (std::size_t i = 0; i < streams_.size(); ++i) {
      epoll_event event{};
      event.events = EPOLLIN | EPOLLOUT | EPOLLET;
      event.data.u64 = i;
      if (epoll_ctl(epoll_, EPOLL_CTL_ADD, streams_[i].fd, &event) != 0) die_of_errno("epoll_ctl");
    }
  }

  // Connections beyond the lanes in use stay open and idle, as in a runtime.
  void adopt(int fd, std::uint64_t peer, std::uint64_t lane) {
    if (lane >= used_) return;
    const int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (const int bytes = static_cast<int>(settings_.send_buffer); bytes > 0) {
      setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
    }
    Stream stream;
    stream.fd = fd;
    stream.peer = peer;
    stream.lane = lane;
    streams_.push_back(stream);
  }

  void lay_out() {
    char* source = touched(settings_.bytes);
    char* result = touched(settings_.bytes);
    const std::uint64_t own = begin(rank_ + 1) - begin(rank_);
    char* landing = touched(own * (settings_.members - 1));
    std::sort(streams_.begin(), streams_.end(), [this](const Stream& a, const Stream& b) {
      return order(a) < order(b);
    });
    epoll_event event{};
    for (std::size_t i = 0; i < streams_.size(); ++i) {
      Stream& stream = streams_[i];
      const std::uint64_t slot = stream.peer < rank_ ? stream.peer : stream.peer - 1;
      const std::uint64_t own_at = lane_begin(rank_, stream.lane);
      const std::uint64_t peer_at = lane_begin(stream.peer, stream.lane);
      stream.own_bytes = lane_begin(rank_, stream.lane + 1) - own_at;
      stream.peer_bytes = lane_begin(stream.peer, stream.lane + 1) - peer_at;
      stream.out_first = source + peer_at;
      stream.out_second = result + own_at;
      stream.in_first = landing + slot * own + (own_at - begin(rank_));
      stream.in_second = result + peer_at;
      event.events = EPOLLIN | EPOLLOUT | EPOLLET;
      event.data.u64 = i;
      if (epoll_ctl(epoll_, EPOLL_CTL_MOD, stream.fd, &event) != 0) die_of_errno("epoll_ctl");
    }
  }

  // Each process begins with another one, so that all are received from at once.
  [[nodiscard]] std::uint64_t order(const Stream& stream) const {
    const std::uint64_t step = (stream.peer + settings_.members - rank_) % settings_.members;
    return step * settings_.connections + stream.lane;
  }

  void exchange() {
    for (Stream& stream : streams_) stream.sent = stream.received = 0;
    double idle_since = 0;
    for (;;) {
      bool moved = false;
      bool done = true;
      for (Stream& stream : streams_) {
        moved = receive(stream) || moved;
        moved = transmit(stream) || moved;
        const std::uint64_t total = stream.own_bytes + stream.peer_bytes;
        done = done && stream.sent == total && stream.received == total;
      }
      if (done) return;
      if (moved) {
        idle_since = 0;
        continue;
      }
      const double now = settings_.spin_us > 0 ? seconds_now() : 0;
      if (idle_since == 0) idle_since = now;
      const bool spins = now - idle_since < static_cast<double>(settings_.spin_us) * 1e-6;
      poll(spins ? 0 : -1);
    }
  }

  bool receive(Stream& stream) {
    const bool first = stream.received < stream.own_bytes;
    const std::uint64_t end = first ? stream.own_bytes : stream.own_bytes + stream.peer_bytes;
    if (!stream.readable || stream.received == end) return false;
    char* at = first ? stream.in_first + stream.received
                     : stream.in_second + (stream.received - stream.own_bytes);
    const std::uint64_t wanted = std::min(settings_.slice, end - stream.received);
    ++calls_;
    const ssize_t got = recv(stream.fd, at, wanted, MSG_DONTWAIT);
    if (got == 0) die("another process has ended");
    if (got < 0 && errno != EAGAIN) die_of_errno("receiving failed");
    stream.readable = got == static_cast<ssize_t>(wanted);
    if (got > 0) stream.received += static_cast<std::uint64_t>(got);
    return got > 0;
  }

  // How far phase 2 has come on a lane: what everybody's phase 1 has brought.
  [[nodiscard]] std::uint64_t complete(std::uint64_t lane) const {
    std::uint64_t least = UINT64_MAX;
    for (const Stream& stream : streams_) {
      if (stream.lane == lane) least = std::min({least, stream.received, stream.own_bytes});
    }
    return least;
  }

  bool transmit(Stream& stream) {
    const bool first = stream.sent < stream.peer_bytes;
    const std::uint64_t end =
        first ? stream.peer_bytes : stream.peer_bytes + complete(stream.lane);
    if (!stream.writable || stream.sent >= end) return false;
    const char* at = first ? stream.out_first + stream.sent
                           : stream.out_second + (stream.sent - stream.peer_bytes);
    const std::uint64_t wanted = std::min(settings_.slice, end - stream.sent);
    ++calls_;
    const ssize_t put = send(stream.fd, at, wanted, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (put < 0 && errno != EAGAIN) die_of_errno("sending failed");
    stream.writable = put == static_cast<ssize_t>(wanted);
    if (put > 0) stream.sent += static_cast<std::uint64_t>(put);
    return put > 0;
  }

  void poll(int timeout_ms) {
    epoll_event events[64];
    ++calls_;
    const int count = epoll_wait(epoll_, events, 64, timeout_ms);
    if (count < 0 && errno != EINTR) die_of_errno("epoll_wait");
    for (int i = 0; i < count; ++i) {
      Stream& stream = streams_[events[i].data.u64];
      const std::uint32_t what = events[i].events;
      if ((what & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0) stream.readable = true;
      if ((what & (EPOLLOUT | EPOLLERR)) != 0) stream.writable = true;
    }
  }

  Settings settings_;
  std::uint64_t rank_;
  std::uint64_t used_;  // lanes
  int epoll_ = -1;
  std::vector<Stream> streams_;
  std::int64_t calls_ = 0;
};

// ---- the parent ---------------------------------------------------------------------------------

void print(const Settings& settings, const std::vector<Report*>& reports) {
  std::vector<double> all;
  double cpu_s = 0;
  std::int64_t calls = 0;
  std::int64_t sleeps = 0;
  for (const Report* report : reports) {
    all.insert(all.end(), report->times_s, report->times_s + settings.iterations);
    cpu_s += report->cpu_s;
    calls += report->calls;
    sleeps += report->sleeps;
  }
  const std::vector<double> raw = all;
  std::sort(all.begin(), all.end());
  const std::size_t half = all.size() / 2;
  const double median = all.size() % 2 != 0 ? all[half] : (all[half - 1] + all[half]) / 2;
  const double ops = static_cast<double>(settings.iterations);
  std::printf(
      "{\"members\": %llu, \"bytes\": %llu, \"connections\": %llu, \"iterations\": %llu, "
      "\"median_s\": %.9f, \"min_s\": %.9f, \"max_s\": %.9f, \"cpu_s_per_op\": %.9f, "
      "\"sent_bytes_per_member\": %lld, \"system_calls_per_op\": %.2f, \"sleeps_per_op\": %.2f, "
      "\"times_s\": [",
      static_cast<unsigned long long>(settings.members),
      static_cast<unsigned long long>(settings.bytes),
      static_cast<unsigned long long>(settings.connections),
      static_cast<unsigned long long>(settings.iterations), median, all.front(), all.back(),
      cpu_s / ops, static_cast<long long>(reports[0]->sent_bytes),
      static_cast<double>(calls) / ops, static_cast<double>(sleeps) / ops);
  for (std::size_t i = 0; i < raw.size(); ++i) std::printf("%s%.9f", i == 0 ? "" : ", ", raw[i]);
  std::printf("]}\n");
}

// Waits for all; the first that fails takes the others with it.
void wait_for_all(std::vector<pid_t> children, const Settings& settings) {
  while (!children.empty()) {
    int status = 0;
    const pid_t ended = waitpid(-1, &status, 0);
    if (ended < 0 && errno == EINTR) continue;
    if (ended < 0) die_of_errno("waitpid");
    std::erase(children, ended);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) continue;
    for (const pid_t child : children) kill(child, SIGKILL);
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM) {
      die("not over after " + std::to_string(settings.timeout_s) + " s; raise --timeout-s");
    }
    die("a process has failed");
  }
}

}  // namespace

int main(int argc, char** argv) {
  const Settings settings = parse(argc, argv);
  std::vector<Listener> listeners;
  std::vector<Report*> reports;
  for (std::uint64_t rank = 0; rank < settings.members; ++rank) {
    listeners.push_back(listen_on_loopback(settings.members * settings.connections));
    const std::uint64_t size = sizeof(Report) + settings.iterations * sizeof(double);
    char* memory = touched(size, MAP_SHARED);
    std::memset(memory, 0, size);
    reports.push_back(reinterpret_cast<Report*>(memory));
  }
  const pid_t parent = getpid();
  std::vector<pid_t> children;
  for (std::uint64_t rank = 0; rank < settings.members; ++rank) {
    const pid_t child = fork();
    if (child < 0) {
      const int reason = errno;
      for (const pid_t started : children) kill(started, SIGKILL);
      die(std::string("fork: ") + strerror(reason));
    }
    if (child == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      if (getppid() != parent) std::_Exit(1);
      alarm(static_cast<unsigned>(settings.timeout_s));
      Process(settings, rank, listeners).run(*reports[rank]);
      std::_Exit(0);
    }
    children.push_back(child);
  }
  wait_for_all(children, settings);
  print(settings, reports);
  return 0;
}
