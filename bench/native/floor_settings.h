// What the floor is asked for, and how it complains: one line on stderr, exit code 1, wrong usage 2.
#pragma once

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

namespace reef::floor {

struct Settings {
  std::uint64_t members = 2;
  std::uint64_t bytes = 1 << 20;
  std::uint64_t connections = 2;
  std::uint64_t iterations = 9;
  std::uint64_t warm_up = 3;
  std::uint64_t slice = 1 << 20;  // of one system call
  std::uint64_t spin_us = 0;        // asked again for so long before the thread sleeps
  std::uint64_t send_buffer = 0;    // SO_SNDBUF of every socket; 0: the kernel's own choice
  std::uint64_t timeout_s = 120;
};

// A lane below this is not worth a second connection's system calls.
constexpr std::uint64_t kLaneBytes = 64 << 10;

[[noreturn]] inline void die(const std::string& what, int code = 1) {
  std::fprintf(stderr, "floor: %s\n", what.c_str());
  std::_Exit(code);
}

[[noreturn]] inline void die_of_errno(const std::string& what) { die(what + ": " + strerror(errno)); }

inline std::uint64_t number(const std::string& name, const char* text, std::uint64_t least,
                            std::uint64_t most) {
  char* end = nullptr;
  errno = 0;
  const unsigned long long value = text == nullptr ? 0 : std::strtoull(text, &end, 10);
  if (text == nullptr || *text < '0' || *text > '9' || *end != '\0' || errno != 0 ||
      value < least || value > most) {
    die(name + " takes a whole number from " + std::to_string(least) + " to " +
            std::to_string(most),
        2);
  }
  return value;
}

inline Settings parse(int argc, char** argv) {
  Settings settings;
  for (int i = 1; i < argc; i += 2) {
    const std::string name = argv[i];
    const char* value = i + 1 < argc ? argv[i + 1] : nullptr;
    if (name == "--members") {
      settings.members = number(name, value, 2, 64);
    } else if (name == "--bytes") {
      settings.bytes = number(name, value, 1, std::uint64_t{1} << 36);
    } else if (name == "--connections") {
      settings.connections = number(name, value, 1, 16);
    } else if (name == "--iterations") {
      settings.iterations = number(name, value, 1, 1'000'000);
    } else if (name == "--warm-up") {
      settings.warm_up = number(name, value, 0, 1'000'000);
    } else if (name == "--slice") {
      settings.slice = number(name, value, 1, std::uint64_t{1} << 30);
    } else if (name == "--spin-us") {
      settings.spin_us = number(name, value, 0, 1'000'000);
    } else if (name == "--send-buffer") {
      settings.send_buffer = number(name, value, 0, std::uint64_t{1} << 30);
    } else if (name == "--timeout-s") {
      settings.timeout_s = number(name, value, 1, 86'400);
    } else {
      die("unknown option " + name + "; see the head of bench/native/floor.cpp", 2);
    }
  }
  return settings;
}

}  // namespace reef::floor
