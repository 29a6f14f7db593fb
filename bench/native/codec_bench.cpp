// Speed of the codecs' kernels on one core, in GB of fp32 per second, next to memcpy's.
//
//   codec_bench [--json] [--mib 256] [--repeats 9] [--codec int8]
//
// Each buffer is far larger than the caches. Rounds go over all kernels in turn, so that a busy
// moment of the machine hits one sample of each and not all samples of one; the median of the
// rounds counts. Time is the thread's CPU time: what other programs take from the core is left out,
// what they take from the memory is not. memcpy moves the same fp32 bytes: it reads and writes
// them.
#include <sys/mman.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "atoll/codec/codec.h"

namespace {

using namespace reef;

struct Settings {
  bool json = false;
  std::size_t mib = 256;
  int repeats = 9;
  std::string codec;
};

struct Case {
  std::string codec;
  std::string isa;
  std::string function;
  std::function<void()> run;
  std::vector<double> seconds;
  [[nodiscard]] double rate(std::size_t bytes) const {
    std::vector<double> sorted = seconds;
    std::sort(sorted.begin(), sorted.end());
    return static_cast<double>(bytes) / sorted[sorted.size() / 2] * 1e-9;
  }
};

// Memory that has been touched, so that no page fault is measured.
template <typename T>
std::span<T> touched(std::size_t count) {
  const std::size_t bytes = count * sizeof(T);
  void* at = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (at == MAP_FAILED) {
    std::perror("mmap");
    std::exit(1);
  }
  madvise(at, bytes, MADV_HUGEPAGE);
  std::memset(at, 1, bytes);
  return {static_cast<T*>(at), count};
}

// Roughly Gaussian: the sum of four uniform numbers.
void fill(std::span<float> x) {
  std::uint64_t state = 1;
  for (float& value : x) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    float sum = 0.f;
    for (int k = 0; k < 4; ++k) sum += static_cast<float>(state >> (16 * k) & 0xffffu);
    value = (sum - 131070.f) * 1e-7f;
  }
}

struct Buffers {
  std::span<float> x;
  std::span<float> y;
  std::vector<std::span<std::byte>> encoded;  // by codec
};

std::vector<Case> cases_of(const Buffers& buffers, const Settings& settings) {
  const std::span<float> x = buffers.x, y = buffers.y;
  std::vector<Case> cases;
  const auto memcpy_case = [=] { std::memcpy(y.data(), x.data(), x.size_bytes()); };
  cases.push_back({"memcpy", "", "copy", memcpy_case, {}});
  for (std::size_t i = 0; i < kCodecs; ++i) {
    const auto id = static_cast<CodecId>(i);
    if (!settings.codec.empty() && settings.codec != codec_name(id)) continue;
    const std::span<std::byte> bytes = buffers.encoded[i];
    for (const Isa isa : kIsas) {
      if (!isa_available(isa)) continue;
      const CodecKernels& kernels = kernels_for(id, isa);
      const auto encoder = [=, &kernels](Rounding rounding) {
        return [=, &kernels] {
          (void)kernels.encode(x.data(), x.size(), bytes.data(), {id, rounding, 1}, 0);
        };
      };
      const auto decode = [=, &kernels] { kernels.decode(bytes.data(), y.size(), y.data()); };
      const auto add = [=, &kernels] { kernels.decode_add(bytes.data(), y.size(), y.data()); };
      const auto push = [&](const char* function, std::function<void()> run) {
        cases.push_back({codec_name(id), isa_name(isa), function, std::move(run), {}});
      };
      push("encode", encoder(Rounding::nearest));
      push("encode_stochastic", encoder(Rounding::stochastic));
      push("decode", decode);
      push("decode_add", add);
    }
  }
  return cases;
}

double cpu_seconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

void measure(std::vector<Case>& cases, int repeats) {
  for (int round = -1; round < repeats; ++round) {  // the first is for warming up
    for (Case& c : cases) {
      const double start = cpu_seconds();
      c.run();
      const double took = cpu_seconds() - start;
      if (round >= 0) c.seconds.push_back(took);
    }
  }
}

std::string first_line_with(const char* path, const char* key) {
  std::string found;
  if (std::FILE* file = std::fopen(path, "r")) {
    char line[512];
    while (found.empty() && std::fgets(line, sizeof line, file) != nullptr) {
      const char* colon = std::strchr(line, ':');
      if (std::strncmp(line, key, std::strlen(key)) == 0 && colon != nullptr) found = colon + 2;
    }
    std::fclose(file);
  }
  while (!found.empty() && found.back() == '\n') found.pop_back();
  return found;
}

void print(const std::vector<Case>& cases, const Settings& settings, std::size_t bytes) {
  double load[1] = {0};
  if (getloadavg(load, 1) != 1) load[0] = -1;
  const std::string processor = first_line_with("/proc/cpuinfo", "model name");
  const double copy = cases.front().rate(bytes);
  if (settings.json) {
    std::printf(
        "{\"processor\": \"%s\", \"cores\": %u, \"load\": %.2f, \"mib\": %zu, "
        "\"repeats\": %d, \"memcpy_gb_per_s\": %.3f, \"results\": [",
        processor.c_str(), std::thread::hardware_concurrency(), load[0], settings.mib,
        settings.repeats, copy);
  } else {
    std::printf("%s, %u cores, load %.2f; %zu MiB of fp32, median of %d\n", processor.c_str(),
                std::thread::hardware_concurrency(), load[0], settings.mib, settings.repeats);
    std::printf("memcpy %.2f GB/s; in brackets, times memcpy\n", copy);
    std::printf("%-12s %-9s %16s %18s %16s %16s\n", "codec", "isa", "encode", "encode, stochastic",
                "decode", "decode_add");
  }
  for (std::size_t i = 1; i < cases.size(); ++i) {
    const Case& c = cases[i];
    const double rate = c.rate(bytes);
    if (settings.json) {
      std::printf(
          "%s\n  {\"codec\": \"%s\", \"isa\": \"%s\", \"function\": \"%s\", "
          "\"gb_per_s\": %.3f, \"times_memcpy\": %.3f}",
          i == 1 ? "" : ",", c.codec.c_str(), c.isa.c_str(), c.function.c_str(), rate, rate / copy);
    } else {
      if (c.function == "encode") std::printf("%-12s %-9s", c.codec.c_str(), c.isa.c_str());
      std::printf(" %8.2f (%5.2f)%s", rate, rate / copy, c.function == "decode_add" ? "\n" : " ");
    }
  }
  if (settings.json) std::printf("\n]}\n");
}

Settings parse(int argc, char** argv) {
  Settings settings;
  for (int i = 1; i < argc; ++i) {
    const std::string flag = argv[i];
    const char* value = i + 1 < argc ? argv[i + 1] : nullptr;
    if (flag == "--json") {
      settings.json = true;
      continue;
    }
    if (flag == "--mib" && value != nullptr) {
      settings.mib = std::strtoul(value, nullptr, 10);
    } else if (flag == "--repeats" && value != nullptr) {
      settings.repeats = std::atoi(value);
    } else if (flag == "--codec" && value != nullptr && codec_named(value)) {
      settings.codec = value;
    } else {
      std::fprintf(stderr, "usage: codec_bench [--json] [--mib N] [--repeats N] [--codec NAME]\n");
      std::exit(2);
    }
    ++i;
  }
  if (settings.mib < 1 || settings.repeats < 1) std::exit(2);
  return settings;
}

}  // namespace

int main(int argc, char** argv) {
  const Settings settings = parse(argc, argv);
  const std::size_t count = (settings.mib << 20) / sizeof(float);
  Buffers buffers{touched<float>(count), touched<float>(count), {}};
  fill(buffers.x);
  fill(buffers.y);
  for (std::size_t i = 0; i < kCodecs; ++i) {
    const auto id = static_cast<CodecId>(i);
    const bool wanted = settings.codec.empty() || settings.codec == codec_name(id);
    const std::size_t size = wanted ? encoded_bytes(id, count) : 0;
    buffers.encoded.push_back(wanted ? touched<std::byte>(size) : std::span<std::byte>());
    if (wanted) (void)encode({id, Rounding::nearest, 0}, buffers.x, buffers.encoded.back());
  }
  std::vector<Case> cases = cases_of(buffers, settings);
  measure(cases, settings.repeats);
  print(cases, settings, count * sizeof(float));
  return 0;
}
