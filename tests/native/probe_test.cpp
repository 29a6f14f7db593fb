// Measuring links between real engines on loopback.
#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <vector>

#include "atoll/engine/engine.h"
#include "atoll/wire/frame.h"
#include "island.h"
#include "raw_peer.h"

namespace reef {
namespace {

using testing::Atoll;
using testing::id_of;
using testing::Island;
using testing::kPatience;

OpId probe(Island& from, const PeerId& to, const Engine::ProbeOptions& options = {}) {
  auto op = from.engine->probe(to, options);
  EXPECT_TRUE(op.ok());
  return op.value();
}

TEST(Probe, GivesARateAndARoundTripBothWays) {
  Atoll atoll(2);
  const OpId there = probe(atoll[0], atoll[1].id);
  const OpId back = probe(atoll[1], atoll[0].id);
  for (const Outcome& outcome : {atoll[0].finish(there), atoll[1].finish(back)}) {
    EXPECT_EQ(outcome.code, Code::ok) << outcome.message;
    EXPECT_GT(outcome.bytes_per_s, 1e6);  // a loopback that is slower than this is none
    EXPECT_GT(outcome.round_trip, 0);
    EXPECT_LT(outcome.round_trip, kPatience);
  }
}

TEST(Probe, AllLinksAtOnceAndOpsGoOn) {
  Atoll atoll(3);
  std::vector<float> in(1 << 18, 1);
  std::vector<std::vector<float>> out(3, std::vector<float>(in.size()));
  Engine::ProbeOptions options;
  options.timeout = kPatience;
  for (int round = 0; round < 3; ++round) {
    std::vector<OpId> probes;
    std::vector<OpId> sums;
    for (std::size_t i = 0; i < 3; ++i) {
      for (std::size_t j = 0; j < 3; ++j) {
        if (i != j) probes.push_back(probe(atoll[i], atoll[j].id, options));
      }
      sums.push_back(atoll[i].all_reduce(in, out[i]));
    }
    for (std::size_t i = 0; i < 3; ++i) EXPECT_EQ(atoll[i].code(sums[i]), Code::ok);
    for (std::size_t i = 0; i < probes.size(); ++i) {
      const Outcome outcome = atoll[i / 2].finish(probes[i]);
      EXPECT_EQ(outcome.code, Code::ok) << outcome.message;
      EXPECT_GT(outcome.bytes_per_s, 0);
    }
  }
  for (const auto& result : out) EXPECT_EQ(result, std::vector<float>(in.size(), 3));
}

TEST(Probe, ItsEndIsAnEventAndItsOutcomeIsKept) {
  Atoll atoll(2);
  const OpId op = probe(atoll[0], atoll[1].id);
  atoll[0].await<OpEnded>([op](const OpEnded& event) { return event.op == op; });
  const auto outcome = atoll[0].engine->wait(op, 0);
  ASSERT_TRUE(outcome.has_value());
  EXPECT_EQ(outcome->code, Code::ok);
  atoll[0].engine->release(op);
}

TEST(Probe, WithoutALinkThereIsNothingToMeasure) {
  Island alone(1);
  EXPECT_EQ(alone.code(probe(alone, id_of(9))), Code::peer_lost);
}

TEST(Probe, OneAtATimeOnALink) {
  Atoll atoll(2);
  const OpId first = probe(atoll[0], atoll[1].id);
  const OpId second = probe(atoll[0], atoll[1].id);
  EXPECT_EQ(atoll[0].code(second), Code::invalid);
  EXPECT_EQ(atoll[0].code(first), Code::ok);
}

TEST(Probe, ALostPeerEndsIt) {
  auto atoll = std::make_unique<Atoll>(2);
  Engine::ProbeOptions options;
  options.timeout = kPatience;
  const OpId op = probe((*atoll)[0], (*atoll)[1].id, options);
  (*atoll)[1].engine->close();
  const Code code = (*atoll)[0].code(op);
  EXPECT_TRUE(code == Code::peer_lost || code == Code::ok) << code_name(code);
  EXPECT_EQ((*atoll)[0].code(probe((*atoll)[0], id_of(2), options)), Code::peer_lost);
}

TEST(Probe, ClosingEndsIt) {
  Atoll atoll(2);
  const OpId op = probe(atoll[0], atoll[1].id);
  atoll[0].engine->close();
  const Code code = atoll[0].code(op);
  EXPECT_TRUE(code == Code::closed || code == Code::ok) << code_name(code);
  EXPECT_FALSE(atoll[0].engine->probe(atoll[1].id, {}).ok());
}

}  // namespace
}  // namespace reef
