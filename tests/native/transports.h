// For tests: the same test over TCP and over shared memory.
//
//   class LinkEnds : public OverEachTransport {};
//   TEST_P(LinkEnds, ...) { Island a(1); ... }
//   INSTANTIATE_TEST_SUITE_P(Over, LinkEnds, kEachTransport, transport_of);
#pragma once

#include <gtest/gtest.h>

#include <string>

#include "atoll/engine/engine.h"

namespace reef::testing {

// What options_of() chooses. A test that says nothing has TCP.
inline bool& shared_memory_chosen() {
  static bool chosen = false;
  return chosen;
}

class TransportChoice {
 public:
  explicit TransportChoice(bool shared_memory) { shared_memory_chosen() = shared_memory; }
  ~TransportChoice() { shared_memory_chosen() = false; }
  TransportChoice(const TransportChoice&) = delete;
  TransportChoice& operator=(const TransportChoice&) = delete;
};

class OverEachTransport : public ::testing::TestWithParam<bool> {
 protected:
  [[nodiscard]] static Transport transport() { return GetParam() ? Transport::shm : Transport::tcp; }

 private:
  TransportChoice choice_{GetParam()};
};

inline const auto kEachTransport = ::testing::Bool();

inline std::string transport_of(const ::testing::TestParamInfo<bool>& info) {
  return info.param ? "Shm" : "Tcp";
}

}  // namespace reef::testing
