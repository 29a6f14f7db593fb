// wan_emulator: hosts on one machine, joined by links with rates, delays, jitter and loss.
//
//   wan_emulator --name NAME --hosts N --control SOCKET [--mtu 1500] [--seed 1] [--offload on|off]
//                [--congestion NAME]
//
// Host I is the network namespace NAME-I with the address 10.77.0.(I+1); all of its traffic to other
// hosts passes through this process. Lines have 1 Gbit/s and paths no delay until commands say
// otherwise (control.h), which are taken from the Unix socket SOCKET. Says one line of JSON on
// standard output when all hosts are there, and ends on SIGTERM, SIGINT or when its parent dies.
//
// Exit codes: 0; 2: wrong usage; 3: this machine does not allow it (no root, no TUN).
#include <sched.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <map>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <vector>

#include "control.h"
#include "control_socket.h"
#include "hosts.h"
#include "lateness.h"
#include "network.h"
#include "packet.h"

namespace wan {

namespace {

// Read from one host before others get their turn and what is due is handed over.
constexpr int kPacketsPerTurn = 32;
constexpr int kPriority = 50;

struct Options {
  HostOptions hosts;
  std::string control;
  std::uint64_t seed = 1;
};

Nanos monotonic_now() {
  timespec time{};
  ::clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec * kSecond + time.tv_nsec;
}

class Emulator {
 public:
  explicit Emulator(const Options& options)
      : epoll_(::epoll_create1(EPOLL_CLOEXEC)),
        network_(options.hosts.hosts, options.seed),
        hosts_(options.hosts),
        control_(options.control, epoll_,
                 [this](const std::string& line) { return obey(line, network_, lateness_); }),
        buffer_(kMostPacketBytes) {
    for (Host host = 0; host < network_.hosts(); ++host) {
      watch(hosts_.device(host));
      host_of_[hosts_.device(host)] = host;
    }
    sigset_t ends{};
    sigemptyset(&ends);
    sigaddset(&ends, SIGTERM);
    sigaddset(&ends, SIGINT);
    sigprocmask(SIG_BLOCK, &ends, nullptr);
    signals_ = ::signalfd(-1, &ends, SFD_CLOEXEC | SFD_NONBLOCK);
    watch(signals_);
  }
  ~Emulator() {
    ::close(signals_);
    ::close(epoll_);
  }
  Emulator(const Emulator&) = delete;
  Emulator& operator=(const Emulator&) = delete;

  void run() {
    std::vector<epoll_event> events(64);
    while (true) {
      const timespec wait = until_due();
      const int ready = ::epoll_pwait2(epoll_, events.data(), static_cast<int>(events.size()),
                                       &wait, nullptr);
      for (int i = 0; i < ready; ++i) {
        const int fd = events[static_cast<std::size_t>(i)].data.fd;
        if (fd == signals_) return;
        if (control_.owns(fd)) {
          control_.on_ready(fd);
        } else {
          take_from(host_of_.at(fd));
          hand_over();
        }
      }
      hand_over();
    }
  }

 private:
  void watch(int fd) {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.fd = fd;
    ::epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &event);
  }

  [[nodiscard]] timespec until_due() const {
    const Nanos due = network_.next_due();
    const Nanos wait = due == kNever ? kSecond : std::max<Nanos>(0, due - monotonic_now());
    return timespec{wait / kSecond, wait % kSecond};
  }

  void take_from(Host host) {
    for (int i = 0; i < kPacketsPerTurn; ++i) {
      const ssize_t got = ::read(hosts_.device(host), buffer_.data(), buffer_.size());
      if (got <= 0) return;
      const auto packet = std::span<const std::byte>(buffer_).first(static_cast<std::size_t>(got));
      const std::optional<PacketView> view = look_at(packet);
      if (!view) continue;
      const std::uint32_t to = view->to - address_bits(0);
      if (to >= network_.hosts() || to == host) continue;
      const Burst burst{host, to, view->segments(), view->segment_bytes(), view->last_bytes()};
      network_.send(burst, monotonic_now(), pieces_);
      for (const Piece& piece : pieces_) {
        under_way_.emplace(++tickets_, slice(packet, *view, piece.first, piece.count));
        network_.carry(burst, piece, tickets_);
      }
    }
  }

  void hand_over() {
    Delivery delivery;
    while (true) {
      const Nanos now = monotonic_now();
      if (!network_.take(now, delivery)) return;
      const auto at = under_way_.find(delivery.ticket);
      if (delivery.count > 0) {
        lateness_.add(now - delivery.due);
        write_to(hosts_.device(delivery.to), at->second, delivery.count);
      }
      under_way_.erase(at);
    }
  }

  // The device takes what it gets or drops it, as a network card would.
  static void write_to(int device, const std::vector<std::byte>& packet, std::uint32_t count) {
    const std::optional<PacketView> view = look_at(packet);
    const bool whole = !view || view->segments() == count;
    const std::vector<std::byte> shorter =
        whole ? std::vector<std::byte>{} : slice(packet, *view, 0, count);
    const std::vector<std::byte>& bytes = whole ? packet : shorter;
    [[maybe_unused]] const ssize_t wrote = ::write(device, bytes.data(), bytes.size());
  }

  int epoll_;
  int signals_ = -1;
  Network network_;
  Lateness lateness_;
  Hosts hosts_;
  ControlSocket control_;
  std::map<int, Host> host_of_;
  std::vector<std::byte> buffer_;
  std::vector<Piece> pieces_;
  std::unordered_map<std::uint64_t, std::vector<std::byte>> under_way_;
  std::uint64_t tickets_ = 0;
};

long whole_number(const std::string& key, const std::string& word, long least, long most) {
  char* end = nullptr;
  errno = 0;
  const long value = std::strtol(word.c_str(), &end, 10);
  if (word.empty() || *end != '\0' || errno != 0 || value < least || value > most) {
    throw std::invalid_argument(key + " takes a whole number from " + std::to_string(least) +
                                " to " + std::to_string(most) + ", not '" + word + "'");
  }
  return value;
}

Options parse(const std::vector<std::string>& words) {
  Options options;
  if (words.size() % 2 != 0) throw std::invalid_argument("options come with a value each");
  for (std::size_t i = 0; i < words.size(); i += 2) {
    const std::string& key = words[i];
    const std::string& word = words[i + 1];
    if (key == "--name") {
      options.hosts.name = word;
    } else if (key == "--hosts") {
      options.hosts.hosts = static_cast<Host>(whole_number(key, word, 2, kMostHosts));
    } else if (key == "--mtu") {
      options.hosts.mtu = static_cast<int>(whole_number(key, word, 576, 65'000));
    } else if (key == "--seed") {
      options.seed = static_cast<std::uint64_t>(whole_number(key, word, 0, INT64_MAX));
    } else if (key == "--control") {
      options.control = word;
    } else if (key == "--congestion") {
      options.hosts.congestion = word;
    } else if (key == "--offload" && (word == "on" || word == "off")) {
      options.hosts.offload = word == "on";
    } else {
      throw std::invalid_argument("not understood: " + key + " " + word);
    }
  }
  const std::string& name = options.hosts.name;
  if (name.empty() || name.size() > 40 || name.find_first_of("/. ") != name.npos) {
    throw std::invalid_argument("--name takes up to 40 letters, digits and dashes");
  }
  if (options.control.empty()) throw std::invalid_argument("--control SOCKET is missing");
  return options;
}

void become_real_time() {
  sched_param parameters{};
  parameters.sched_priority = kPriority;
  if (::sched_setscheduler(0, SCHED_FIFO, &parameters) != 0) {
    std::fprintf(stderr, "wan_emulator: no real-time priority (%s); look at its lateness\n",
                 std::strerror(errno));
  }
  ::mlockall(MCL_CURRENT);
}

int run(const std::vector<std::string>& words) {
  try {
    const Options options = parse(words);
    if (::geteuid() != 0) throw std::runtime_error("needs root, to make network namespaces");
    ::prctl(PR_SET_PDEATHSIG, SIGTERM);
    for (const std::string& lab : Hosts::remove_leftovers()) {
      std::fprintf(stderr, "wan_emulator: removed what lab %s had left\n", lab.c_str());
    }
    Emulator emulator(options);
    become_real_time();
    std::printf("{\"ready\": true, \"hosts\": %u}\n", options.hosts.hosts);
    std::fflush(stdout);
    emulator.run();
  } catch (const std::invalid_argument& wrong) {
    std::fprintf(stderr, "wan_emulator: %s\n", wrong.what());
    return 2;
  } catch (const std::runtime_error& error) {
    std::fprintf(stderr, "wan_emulator: %s\n", error.what());
    return 3;
  }
  return 0;
}

}  // namespace

}  // namespace wan

int main(int argc, char** argv) {
  return wan::run(std::vector<std::string>(argv + 1, argv + argc));
}
