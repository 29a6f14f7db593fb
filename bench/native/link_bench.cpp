// All-reduces between processes of this host, over TCP and over shared memory: medians and CPU time.
//
//   link_bench [--members 2,4] [--bytes 1024,1048576,...] [--turns 3] [--plan auto|ring|direct]
//              [--transports tcp,shm]
//
// Every measurement is made by fresh processes, one for each member; the transports take turns, so
// that a drift of the machine's speed hits both. Times are rank 0's, of one op after the other.
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <sstream>
#include <string>
#include <vector>

#include "atoll/engine/engine.h"

namespace reef {
namespace {

constexpr Nanos kPatience = 120 * kSecond;
constexpr std::size_t kMaxTimes = 2'000;

struct Setup {
  unsigned members = 2;
  std::size_t bytes = 0;
  Plan plan = Plan::none;
  bool shared_memory = false;
};

// What a member tells the parent at the end.
struct Report {
  double cpu_s = 0;
  std::uint32_t count = 0;
  std::uint32_t voluntary = 0;  // context switches: sleeps
  std::uint32_t preempted = 0;
  double times_s[kMaxTimes];
};

[[noreturn]] void die(const std::string& what) {
  std::fprintf(stderr, "link_bench: %s\n", what.c_str());
  std::_Exit(1);
}

void put(int fd, const void* bytes, std::size_t count) {
  const char* at = static_cast<const char*>(bytes);
  while (count > 0) {
    const ssize_t written = ::write(fd, at, count);
    if (written <= 0) die("a member is gone");
    at += written;
    count -= static_cast<std::size_t>(written);
  }
}

void get(int fd, void* bytes, std::size_t count) {
  char* at = static_cast<char*>(bytes);
  while (count > 0) {
    const ssize_t got = ::read(fd, at, count);
    if (got <= 0) die("a member is gone");
    at += got;
    count -= static_cast<std::size_t>(got);
  }
}

PeerId id_of(unsigned rank) {
  PeerId id;
  id.bytes[0] = static_cast<std::uint8_t>(rank + 1);
  return id;
}

double cpu_s(rusage* usage) {
  ::getrusage(RUSAGE_SELF, usage);
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) * 1e-6;
  };
  return seconds(usage->ru_utime) + seconds(usage->ru_stime);
}

void run_op(Engine& engine, const OpRequest& request) {
  auto op = engine.submit(request);
  if (!op) die(op.error().message);
  const auto outcome = engine.wait(op.value(), kPatience);
  if (!outcome || outcome->code != Code::ok) die("an op failed");
  engine.release(op.value());
  (void)engine.take_events();
}

void be_member(const Setup& setup, unsigned rank, int parent) {
  EngineOptions options;
  options.self = id_of(rank);
  options.shared_memory = setup.shared_memory;
  auto created = Engine::create(options);
  if (!created) die(created.error().message);
  Engine& engine = *created.value();
  const std::uint16_t port = engine.port();
  put(parent, &port, sizeof port);
  std::vector<std::uint16_t> ports(setup.members);
  get(parent, ports.data(), ports.size() * sizeof ports[0]);
  View view{1, {}};
  for (unsigned other = 0; other < setup.members; ++other) {
    view.members.push_back(id_of(other));
    if (other > rank) engine.expect(id_of(other));
    if (other < rank) engine.dial(id_of(other), "127.0.0.1", ports[other]);
  }
  for (unsigned up = 0; up + 1 < setup.members;) {
    for (const Event& event : engine.take_events()) {
      up += std::holds_alternative<LinkUp>(event) ? 1 : 0;
    }
    ::usleep(1000);
  }
  engine.install(view, {}, Change::abort);

  std::vector<float> in(setup.bytes / sizeof(float), 1.0f);
  std::vector<float> out(in.size());
  OpRequest request;
  request.kind = OpKind::all_reduce;
  request.plan = setup.plan;
  request.count = in.size();
  request.in = std::as_bytes(std::span(in));
  request.out = std::as_writable_bytes(std::span(out));
  const std::size_t rounds =
      setup.bytes >= (64u << 20) ? 4 : (setup.bytes >= (4u << 20) ? 20 : 300);
  for (std::size_t i = 0; i < 3; ++i) run_op(engine, request);
  static Report report;
  rusage before{};
  rusage after{};
  const double cpu_before = cpu_s(&before);
  for (std::size_t i = 0; i < rounds; ++i) {
    const Nanos began = monotonic_now();
    run_op(engine, request);
    report.times_s[report.count++] = static_cast<double>(monotonic_now() - began) * 1e-9;
  }
  report.cpu_s = cpu_s(&after) - cpu_before;
  report.voluntary = static_cast<std::uint32_t>(after.ru_nvcsw - before.ru_nvcsw);
  report.preempted = static_cast<std::uint32_t>(after.ru_nivcsw - before.ru_nivcsw);
  if (!out.empty() && out.back() != static_cast<float>(setup.members)) die("a wrong sum");
  put(parent, &report, sizeof report);
  get(parent, &ports[0], 1);  // nobody leaves before all have finished
}

struct Sample {
  std::vector<double> times_s;
  double cpu_s = 0;
  double voluntary = 0;
  double preempted = 0;
  void measure(const Setup& setup) {
    std::vector<int> fds;
    std::vector<pid_t> pids;
    for (unsigned rank = 0; rank < setup.members; ++rank) {
      int pair[2];
      if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) die("no socketpair");
      const pid_t pid = ::fork();
      if (pid < 0) die("cannot fork");
      if (pid == 0) {
        for (const int fd : fds) ::close(fd);
        ::close(pair[0]);
        be_member(setup, rank, pair[1]);
        std::_Exit(0);
      }
      ::close(pair[1]);
      fds.push_back(pair[0]);
      pids.push_back(pid);
    }
    std::vector<std::uint16_t> ports(setup.members);
    for (unsigned rank = 0; rank < setup.members; ++rank) get(fds[rank], &ports[rank], 2);
    for (const int fd : fds) put(fd, ports.data(), 2 * ports.size());
    static Report report;
    for (unsigned rank = 0; rank < setup.members; ++rank) {
      get(fds[rank], &report, sizeof report);
      cpu_s += report.cpu_s;
      voluntary += report.voluntary;
      preempted += report.preempted;
      if (rank == 0) times_s.insert(times_s.end(), report.times_s, report.times_s + report.count);
    }
    for (const int fd : fds) put(fd, "x", 1);
    for (const pid_t pid : pids) {
      int status = 0;
      ::waitpid(pid, &status, 0);
      if (status != 0) die("a member failed");
    }
    for (const int fd : fds) ::close(fd);
  }
  [[nodiscard]] double median_s() {
    std::sort(times_s.begin(), times_s.end());
    return times_s[times_s.size() / 2];
  }
};

std::vector<std::string> split(const std::string& list) {
  std::vector<std::string> parts;
  std::istringstream stream(list);
  for (std::string part; std::getline(stream, part, ',');) parts.push_back(part);
  return parts;
}

int run(int count, char** arguments) {
  std::string members = "2,4";
  std::string bytes = "1024,1048576,16777216,268435456";
  std::string transports = "tcp,shm";
  std::string plan = "auto";
  unsigned turns = 3;
  for (int i = 1; i + 1 < count; i += 2) {
    const std::string name = arguments[i];
    const std::string value = arguments[i + 1];
    if (name == "--members") members = value;
    else if (name == "--bytes") bytes = value;
    else if (name == "--transports") transports = value;
    else if (name == "--plan") plan = value;
    else if (name == "--turns") turns = static_cast<unsigned>(std::stoul(value));
    else die("unknown option " + name + "; see the head of link_bench.cpp");
  }
  std::printf("members      bytes  transport  median ms  cpu ms/op  cpu ns/byte  sleeps/op  preempted/op\n");
  for (const std::string& member_count : split(members)) {
    for (const std::string& size : split(bytes)) {
      const std::vector<std::string> kinds = split(transports);
      std::vector<Sample> samples(kinds.size());
      Setup setup;
      setup.members = static_cast<unsigned>(std::stoul(member_count));
      setup.bytes = std::stoul(size);
      setup.plan = plan == "ring" ? Plan::ring : (plan == "direct" ? Plan::direct : Plan::none);
      for (unsigned turn = 0; turn < turns; ++turn) {
        for (std::size_t i = 0; i < kinds.size(); ++i) {
          setup.shared_memory = kinds[i] == "shm";
          samples[i].measure(setup);
        }
      }
      for (std::size_t i = 0; i < kinds.size(); ++i) {
        Sample& sample = samples[i];
        const double ops = static_cast<double>(sample.times_s.size());
        std::printf("%7u %10zu  %9s %10.3f %10.3f %12.3f %10.1f %13.1f\n", setup.members,
                    setup.bytes, kinds[i].c_str(), sample.median_s() * 1e3,
                    sample.cpu_s / ops * 1e3,
                    sample.cpu_s / ops / static_cast<double>(setup.bytes) * 1e9,
                    sample.voluntary / ops, sample.preempted / ops);
        std::fflush(stdout);
      }
    }
  }
  return 0;
}

}  // namespace
}  // namespace reef

int main(int count, char** arguments) { return reef::run(count, arguments); }
