// How late packets were handed over, in whole microseconds. Pure; one thread.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "network.h"

namespace wan {

class Lateness {
 public:
  // Later than that is as bad as that.
  static constexpr std::uint32_t kMostMicros = 100'000;
  // Of a run whose 99th percentile is beyond it nothing is to be believed.
  static constexpr std::uint32_t kVoidMicros = 2'000;

  void add(Nanos late) {
    const Nanos micros = std::clamp<Nanos>(late / 1'000, 0, kMostMicros);
    ++counts_[static_cast<std::size_t>(micros)];
    ++count_;
    most_ = std::max(most_, static_cast<std::uint32_t>(micros));
  }
  [[nodiscard]] std::uint64_t count() const { return count_; }
  [[nodiscard]] std::uint32_t most_micros() const { return most_; }
  // The least that so many hundredths of all packets do not exceed; 0 without packets.
  [[nodiscard]] std::uint32_t percentile_micros(std::uint32_t hundredths) const {
    const std::uint64_t wanted = (count_ * hundredths + 99) / 100;
    std::uint64_t seen = 0;
    for (std::uint32_t micros = 0; micros <= most_; ++micros) {
      seen += counts_[micros];
      if (seen >= wanted) return micros;
    }
    return most_;
  }
  [[nodiscard]] bool is_void() const { return percentile_micros(99) > kVoidMicros; }
  void reset() { *this = Lateness{}; }

 private:
  std::vector<std::uint64_t> counts_ = std::vector<std::uint64_t>(kMostMicros + 1, 0);
  std::uint64_t count_ = 0;
  std::uint32_t most_ = 0;
};

}  // namespace wan
