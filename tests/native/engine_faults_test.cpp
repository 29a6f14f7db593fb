// What happens to ops when peers die, stop or are attacked: real processes, real signals.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <random>
#include <sstream>
#include <thread>
#include <vector>

#include "atoll/base/limits.h"
#include "atoll/net/lifeline.h"
#include "child.h"
#include "island.h"
#include "raw_peer.h"

namespace reef::testing {
namespace {

constexpr std::size_t kLarge = 4u << 20;      // elements: 16 MiB
constexpr std::size_t kStateBytes = 64u << 20;

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

// ---- the child's side ----------------------------------------------------------------------------

// Takes part in all-reduces of ones on channel 0 until it is killed.
void reduce_for_ever(Island& self) {
  const std::vector<float> in(kLarge, 1);
  std::vector<float> out(kLarge);
  while (self.code(self.all_reduce(in, out, Plan::ring)) == Code::ok) {
  }
}

void donate_for_ever(Island& self) {
  std::vector<std::byte> state(kStateBytes, std::byte{9});
  self.engine->publish({5, {std::span(state).first(100), state}, nullptr});
  self.await<LinkDown>();
}

// Has a child of its own that keeps all its sockets open for a while after it is killed.
void leave_an_heir(Island& self) {
  if (::fork() == 0) {
    ::alarm(20);
    ::pause();
  }
  reduce_for_ever(self);
}

TEST(Child, DISABLED_Run) {
  if (variable("CHILD_ROLE").empty()) {
    GTEST_SKIP() << "runs only as a child of other tests";
  }
  const unsigned number = static_cast<unsigned>(std::stoul(variable("CHILD_NUMBER")));
  EngineOptions options = options_of(number);
  options.heartbeat = 50 * kMillisecond;
  options.shared_memory = variable("CHILD_SHARED_MEMORY") == "1";
  Island self(options);
  View view{1, {}};
  std::istringstream dials(variable("CHILD_DIALS"));
  unsigned older = 0;
  char colon = 0;
  unsigned port = 0;
  while (dials >> older >> colon >> port) {
    self.engine->dial(id_of(older), "127.0.0.1", static_cast<std::uint16_t>(port));
    self.await_up(id_of(older));
    view.members.push_back(id_of(older));
  }
  view.members.push_back(self.id);
  self.install(view);
  if (variable("CHILD_ROLE") == "reduce") {
    reduce_for_ever(self);
  } else if (variable("CHILD_ROLE") == "heir") {
    leave_an_heir(self);
  } else if (variable("CHILD_ROLE") == "donate") {
    donate_for_ever(self);
  } else {
    self.await<LinkDown>();  // idle
  }
}

// ---- the tests' side -----------------------------------------------------------------------------

std::uint64_t received_from(Island& island, const PeerId& peer) {
  for (const LinkStats& link : island.engine->stats().links) {
    if (link.peer == peer) {
      return link.received_bytes;
    }
  }
  return 0;
}

// Returns when more than so many bytes have come from `peer`.
void await_bytes(Island& island, const PeerId& peer, std::uint64_t bytes) {
  const Nanos deadline = monotonic_now() + kPatience;
  while (received_from(island, peer) < bytes) {
    ASSERT_LT(monotonic_now(), deadline) << "no such traffic in time";
    std::this_thread::yield();
  }
}

// Of one host either may be noticed first.
bool is_killing(LinkEnd reason) {
  return reason == LinkEnd::reset || (shared_memory_chosen() && reason == LinkEnd::died);
}

class EngineFaults : public OverEachTransport {};
INSTANTIATE_TEST_SUITE_P(Over, EngineFaults, kEachTransport, transport_of);

TEST_P(EngineFaults, SurvivorsOfAKilledMemberGetTheirOwnSum) {
  Island a(1);
  Island b(2);
  b.engine->dial(a.id, "127.0.0.1", a.engine->port());
  a.engine->expect(b.id);
  a.await_up(b.id);
  b.await_up(a.id);
  Child doomed("reduce", 3, {&a, &b});
  a.await_up(id_of(3));
  b.await_up(id_of(3));
  View view{1, {a.id, b.id, id_of(3)}};
  a.install(view);
  b.install(view);

  const std::vector<float> in_a(kLarge, 10);
  const std::vector<float> in_b(kLarge, 100);
  std::vector<float> out_a(kLarge);
  std::vector<float> out_b(kLarge);
  for (const LinkStats& link : a.engine->stats().links) {
    ASSERT_EQ(link.transport, transport());
  }
  // Some rounds with it, the last of which it does not live to see.
  Sequence rounds = 0;
  OpId op_a = 0;
  OpId op_b = 0;
  for (; rounds < 3; ++rounds) {
    op_a = a.all_reduce(in_a, out_a, Plan::ring);
    op_b = b.all_reduce(in_b, out_b, Plan::ring);
    ASSERT_EQ(a.code(op_a), Code::ok);
    ASSERT_EQ(b.code(op_b), Code::ok);
    ASSERT_TRUE(std::all_of(out_a.begin(), out_a.end(), [](float x) { return x == 111; }));
  }
  op_a = a.all_reduce(in_a, out_a, Plan::ring);
  const std::uint64_t before = received_from(a, id_of(3));
  op_b = b.all_reduce(in_b, out_b, Plan::ring);
  await_bytes(a, id_of(3), before + 1);
  doomed.kill();
  EXPECT_TRUE(is_killing(a.await_down(id_of(3)).reason));
  EXPECT_TRUE(is_killing(b.await_down(id_of(3)).reason));

  // What the coordinator does: freeze, take the least done, go on without the lost one.
  a.engine->fence(1, Change::abort);
  b.engine->fence(1, Change::abort);
  const Fenced fenced_a = a.await<Fenced>();
  const Fenced fenced_b = b.await<Fenced>();
  const Sequence start =
      std::min(fenced_a.progress.at(0).done, fenced_b.progress.at(0).done);
  view = View{2, {a.id, b.id}};
  a.install(view, {{0, start}});
  b.install(view, {{0, start}});
  const Outcome outcome_a = a.finish(op_a);
  const Outcome outcome_b = b.finish(op_b);
  EXPECT_EQ(outcome_a.code, Code::ok) << outcome_a.message;
  EXPECT_EQ(outcome_b.code, Code::ok) << outcome_b.message;
  EXPECT_EQ(outcome_a.epoch, outcome_b.epoch);
  const float sum = start > rounds ? 111 : 110;  // it may have died just after the last byte
  EXPECT_TRUE(std::all_of(out_a.begin(), out_a.end(), [=](float x) { return x == sum; }));
  EXPECT_TRUE(out_a == out_b);
}

TEST_P(EngineFaults, AStoppedProcessIsSilent) {
  EngineOptions options = options_of(1);
  options.heartbeat = 100 * kMillisecond;
  options.silence = kSecond;
  Island island(options);
  Child child("idle", 2, {&island});
  island.await_up(id_of(2));
  child.stop();
  const Nanos stopped = monotonic_now();
  const LinkDown down = island.await_down(id_of(2));
  EXPECT_EQ(down.reason, LinkEnd::silent) << down.message;
  const Nanos took = monotonic_now() - stopped;
  EXPECT_LE(took, options.silence + options.heartbeat + 500 * kMillisecond);
}

TEST_P(EngineFaults, StrangersDoNotDisturbOps) {
  Atoll atoll(3);
  std::atomic<bool> over = false;
  std::thread strangers([&] {
    std::mt19937 random(5);
    std::uniform_int_distribution<int> byte(0, 255);
    std::vector<RawPeer> idle;
    for (int i = 0; i < 100; ++i) {
      idle.emplace_back(atoll[0].engine->port());
    }
    const GreetingBytes greeting = encode_greeting(FrameType::hello, hello_to(atoll[0], 77));
    while (!over) {
      for (const std::size_t member : {0u, 1u, 2u}) {
        RawPeer noisy(atoll[member].engine->port());
        std::vector<std::byte> bytes(1'000);
        for (std::byte& one : bytes) {
          one = static_cast<std::byte>(byte(random));
        }
        noisy.say(bytes);
        RawPeer truncated(atoll[member].engine->port());
        truncated.say(std::span(greeting).first(60));
        FrameHeader header;
        header.type = FrameType::data;
        header.length = UINT32_MAX;
        RawPeer absurd(atoll[member].engine->port());
        absurd.say(header);
      }
    }
  });
  std::vector<std::vector<float>> out(3, std::vector<float>(100'000));
  const std::vector<float> in(100'000, 2);
  for (int round = 0; round < 100; ++round) {
    std::vector<OpId> ops;
    for (std::size_t i = 0; i < 3; ++i) {
      ops.push_back(atoll[i].all_reduce(in, out[i]));
    }
    for (std::size_t i = 0; i < 3; ++i) {
      ASSERT_EQ(atoll[i].code(ops[i]), Code::ok);
      ASSERT_TRUE(std::all_of(out[i].begin(), out[i].end(), [](float x) { return x == 6; }));
    }
  }
  over = true;
  strangers.join();
  const EngineStats first = atoll[0].engine->stats();
  EXPECT_GE(first.rejected_overload, 1u);
  EXPECT_GE(first.rejected_garbage + first.rejected_overload, 30u);
  EXPECT_GE(atoll[1].engine->stats().rejected_garbage, 1u);
  for (std::size_t i = 0; i < 3; ++i) {
    const EngineStats stats = atoll[i].engine->stats();
    EXPECT_EQ(stats.protocol_errors, 0u);
    EXPECT_TRUE(std::all_of(stats.links.begin(), stats.links.end(),
                            [](const LinkStats& link) { return link.up; }));
  }
}

TEST_P(EngineFaults, ADonorThatIsKilledFailsTheFetchOnce) {
  Island joiner(1);
  Child donor("donate", 2, {&joiner});
  joiner.await_up(id_of(2));
  std::vector<std::byte> manifest(1'000);
  // Its publication may be on its way still.
  Outcome outcome;
  do {
    auto op = joiner.engine->fetch(id_of(2), UINT64_MAX, 0, 0, manifest, kPatience);
    outcome = joiner.finish(op.value());
  } while (outcome.code == Code::wrong_revision);
  ASSERT_EQ(outcome.code, Code::ok) << outcome.message;
  EXPECT_EQ(outcome.revision, 5u);
  EXPECT_EQ(outcome.sequence, 100u);

  std::vector<std::byte> state(kStateBytes);
  std::vector<OpId> ops;
  constexpr std::size_t kPart = 1u << 20;
  const auto fetch_up_to = [&](std::size_t end) {
    for (std::size_t at = ops.size() * kPart; at < end; at += kPart) {
      ops.push_back(joiner.engine
                        ->fetch(id_of(2), 5, 1, at, std::span(state).subspan(at, kPart), kPatience)
                        .value());
    }
  };
  fetch_up_to(kStateBytes / 2);
  await_bytes(joiner, id_of(2), 2u << 20);
  // However fast the first half went, nobody serves the second.
  donor.stop();
  fetch_up_to(kStateBytes);
  donor.kill();
  std::size_t lost = 0;
  for (std::size_t i = 0; i < ops.size(); ++i) {
    const Code code = joiner.code(ops[i]);
    EXPECT_TRUE(code == Code::ok || code == Code::peer_lost) << code_name(code);
    lost += code == Code::peer_lost ? 1 : 0;
    if (code == Code::ok) {
      const auto part = std::span(state).subspan(i * kPart, kPart);
      EXPECT_TRUE(std::all_of(part.begin(), part.end(),
                              [](std::byte one) { return one == std::byte{9}; }));
    }
  }
  EXPECT_TRUE(is_killing(joiner.await_down(id_of(2)).reason));
  EXPECT_GE(lost, 1u);
  for (const OpId op : ops) {
    joiner.await<OpEnded>([op](const OpEnded& event) { return event.op == op; });
  }
}

TEST(EngineDeaths, AreKnownBeforeTheSocketsEnd) {
  if (!DeathWatch::create([](std::uint64_t) {})) GTEST_SKIP() << "the kernel has no futex_waitv";
  const TransportChoice choice(true);
  Island a(1);
  Child doomed("heir", 2, {&a});
  a.await_up(id_of(2));
  a.install(View{1, {a.id, id_of(2)}});
  const std::vector<float> in(kLarge, 1);
  std::vector<float> out(kLarge);
  ASSERT_EQ(a.code(a.all_reduce(in, out, Plan::ring)), Code::ok);  // its heir is there
  doomed.kill();
  EXPECT_EQ(a.await_down(id_of(2)).reason, LinkEnd::died);
}

std::size_t open_descriptors() {
  const std::filesystem::directory_iterator all("/proc/self/fd");
  return static_cast<std::size_t>(std::distance(begin(all), end(all)));
}

TEST_P(EngineFaults, CreatingAndClosingLeaksNoDescriptor) {
  { Atoll warm_up(2); }
  const std::size_t before = open_descriptors();
  for (int round = 0; round < 200; ++round) {
    if (round % 4 == 0) {
      Atoll atoll(2);
      RawPeer stranger(atoll[0].engine->port());
    } else {
      Island alone(1);
      alone.engine->dial(id_of(2), "127.0.0.1", 1);
      if (round % 4 == 1) {
        alone.engine->close();
      }
    }
  }
  EXPECT_EQ(open_descriptors(), before);
}

}  // namespace
}  // namespace reef::testing
