// Shared state from donor to joiner, over real sockets.
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <vector>

#include "atoll/base/limits.h"
#include "island.h"
#include "raw_peer.h"

namespace reef::testing {
namespace {

// A manifest and one tensor whose bytes tell their place and their revision.
struct Shared {
  Shared(std::uint64_t its_revision, std::size_t bytes) : revision(its_revision), tensor(bytes) {
    manifest.assign(700, static_cast<std::byte>(revision));
    for (std::size_t i = 0; i < bytes; ++i) {
      tensor[i] = static_cast<std::byte>(i * 7 + i / 1'000 + revision);
    }
  }
  std::uint64_t revision;
  std::vector<std::byte> manifest;
  std::vector<std::byte> tensor;
};

std::weak_ptr<Shared> publish(Island& donor, std::uint64_t revision, std::size_t bytes) {
  auto shared = std::make_shared<Shared>(revision, bytes);
  donor.engine->publish({revision, {shared->manifest, shared->tensor}, shared});
  return shared;
}

class StateTransfer : public OverEachTransport {
 protected:
  StateTransfer() : donor(1), joiner(2) {
    donor.engine->expect(joiner.id);
    joiner.engine->dial(donor.id, "127.0.0.1", donor.engine->port());
    donor.await_up(joiner.id);
    joiner.await_up(donor.id);
  }
  OpId fetch(std::uint64_t revision, std::uint32_t buffer, std::uint64_t offset,
             std::span<std::byte> out, Nanos timeout = kPatience) {
    auto op = joiner.engine->fetch(donor.id, revision, buffer, offset, out, timeout);
    EXPECT_TRUE(op.ok()) << op.error().message;
    return op.value();
  }
  Outcome fetch_now(std::uint64_t revision, std::uint32_t buffer, std::uint64_t offset,
                    std::span<std::byte> out) {
    return joiner.finish(fetch(revision, buffer, offset, out));
  }
  // A command that has been answered comes after all commands before it.
  void settle() { (void)donor.engine->stats(); }
  // Each turn is a round trip to the reactor: its own clock, not a guess.
  void await_freed(const std::weak_ptr<Shared>& shared) {
    const Nanos deadline = monotonic_now() + kPatience;
    while (!shared.expired() && monotonic_now() < deadline) {
      settle();
    }
    EXPECT_TRUE(shared.expired());
  }

  Island donor;
  Island joiner;
};

INSTANTIATE_TEST_SUITE_P(Over, StateTransfer, kEachTransport, transport_of);

TEST_P(StateTransfer, TheManifestComesAtAnyRevisionAndSaysItsLength) {
  publish(donor, 17, 10);
  settle();
  std::vector<std::byte> out(4'096);
  const Outcome outcome = fetch_now(UINT64_MAX, 0, 0, out);
  EXPECT_EQ(outcome.code, Code::ok) << outcome.message;
  EXPECT_EQ(outcome.revision, 17u);
  EXPECT_EQ(outcome.sequence, 700u);
  EXPECT_TRUE(std::all_of(out.begin(), out.begin() + 700,
                          [](std::byte one) { return one == std::byte{17}; }));
  EXPECT_EQ(out[700], std::byte{0});
}

TEST_P(StateTransfer, PartsOfATensorComeWhole) {
  constexpr std::size_t kBytes = 20'000'003;
  const auto shared = publish(donor, 3, kBytes);
  settle();
  for (const std::size_t part : {std::size_t{1} << 20, std::size_t{777'777}, kBytes}) {
    std::vector<std::byte> out(kBytes);
    std::vector<OpId> ops;
    for (std::size_t at = 0; at < kBytes; at += part) {
      const std::size_t bytes = std::min(part, kBytes - at);
      ops.push_back(fetch(3, 1, at, std::span(out).subspan(at, bytes)));
    }
    for (const OpId op : ops) {
      const Outcome outcome = joiner.finish(op);
      EXPECT_EQ(outcome.code, Code::ok) << outcome.message;
      EXPECT_EQ(outcome.revision, 3u);
    }
    EXPECT_TRUE(out == shared.lock()->tensor);
  }
  EXPECT_EQ(donor.engine->stats().donated_bytes, 3 * kBytes);
}

TEST_P(StateTransfer, AnEmptyPartIsFetched) {
  publish(donor, 1, 100);
  settle();
  EXPECT_EQ(fetch_now(1, 1, 100, {}).code, Code::ok);
  EXPECT_EQ(fetch_now(1, 1, 0, {}).code, Code::ok);
}

TEST_P(StateTransfer, WhatTheDonorDoesNotHoldIsRefusedWithAReason) {
  std::vector<std::byte> out(100);
  Outcome outcome = fetch_now(UINT64_MAX, 0, 0, out);  // nothing published
  EXPECT_EQ(outcome.code, Code::wrong_revision);
  EXPECT_EQ(outcome.revision, UINT64_MAX);
  publish(donor, 8, 1'000);
  settle();
  outcome = fetch_now(7, 1, 0, out);
  EXPECT_EQ(outcome.code, Code::wrong_revision);
  EXPECT_EQ(outcome.revision, 8u);
  EXPECT_EQ(fetch_now(8, 1, 901, out).code, Code::invalid);         // beyond the end
  EXPECT_EQ(fetch_now(8, 1, UINT64_MAX, out).code, Code::invalid);  // far beyond it
  EXPECT_EQ(fetch_now(8, 2, 0, out).code, Code::invalid);           // no such buffer
  EXPECT_EQ(fetch_now(8, 1, 900, out).code, Code::ok);
  donor.engine->unpublish();
  settle();
  EXPECT_EQ(fetch_now(8, 1, 0, out).code, Code::wrong_revision);
}

TEST_P(StateTransfer, WhatCanBeRefusedHereIs) {
  std::vector<std::byte> out(10);
  EXPECT_EQ(joiner.engine->fetch(donor.id, UINT64_MAX, 1, 0, out, kSecond).error().code,
            Code::invalid);
  const std::span<std::byte> huge(out.data(), limits::kMaxStateRequestBytes + 1);
  EXPECT_EQ(joiner.engine->fetch(donor.id, 1, 1, 0, huge, kSecond).error().code, Code::invalid);
  auto op = joiner.engine->fetch(id_of(99), 1, 1, 0, out, kSecond);
  EXPECT_EQ(joiner.code(op.value()), Code::peer_lost);
}

TEST_P(StateTransfer, MoreRequestsThanTheDonorTakesWaitTheirTurn) {
  const auto shared = publish(donor, 1, 1'000);
  settle();
  std::vector<std::byte> out(1'000);
  std::vector<OpId> ops;
  for (std::size_t i = 0; i < 1'000; ++i) {
    ops.push_back(fetch(1, 1, i, std::span(out).subspan(i, 1)));
  }
  for (const OpId op : ops) {
    EXPECT_EQ(joiner.code(op), Code::ok);
  }
  EXPECT_TRUE(out == shared.lock()->tensor);
}

// A transfer that has begun goes on from the old buffers, which are freed when the last has ended.
TEST_P(StateTransfer, AReplacedRevisionIsServedToItsEndAndThenFreed) {
  constexpr std::size_t kBytes = 16u << 20;
  const auto first = publish(donor, 1, kBytes);
  settle();
  const Shared expected(1, kBytes);
  std::vector<std::byte> out(kBytes);
  std::vector<OpId> ops;
  constexpr std::size_t kPart = 1u << 20;
  for (std::size_t at = 0; at < kBytes; at += kPart) {
    ops.push_back(fetch(1, 1, at, std::span(out).subspan(at, kPart)));
  }
  const auto second = publish(donor, 2, 1'000);
  std::size_t served = 0;
  for (std::size_t i = 0; i < ops.size(); ++i) {
    const Outcome outcome = joiner.finish(ops[i]);
    if (outcome.code == Code::ok) {
      EXPECT_EQ(outcome.revision, 1u);
      EXPECT_TRUE(std::equal(out.begin() + static_cast<std::ptrdiff_t>(i * kPart),
                             out.begin() + static_cast<std::ptrdiff_t>((i + 1) * kPart),
                             expected.tensor.begin() + static_cast<std::ptrdiff_t>(i * kPart)));
      ++served;
    } else {
      EXPECT_EQ(outcome.code, Code::wrong_revision) << outcome.message;
      EXPECT_EQ(outcome.revision, 2u);
    }
  }
  await_freed(first);
  EXPECT_FALSE(second.expired());
  donor.engine->unpublish();
  await_freed(second);
}

TEST_P(StateTransfer, ADonorThatClosesLosesItsFetchesAndFreesItsBuffers) {
  constexpr std::size_t kBytes = 64u << 20;
  const auto shared = publish(donor, 1, kBytes);
  settle();
  std::vector<std::byte> out(kBytes);
  const OpId op = fetch(1, 1, 0, out);
  donor.engine->close();
  const Code code = joiner.code(op);
  EXPECT_TRUE(code == Code::peer_lost || code == Code::ok) << code_name(code);
  EXPECT_TRUE(shared.expired());
}

// A donor that never answers: the joiner's deadline passes, and its buffer is free.
TEST_P(StateTransfer, ADeadlineEndsAFetch) {
  RawPeer silent = linked_raw_peer(joiner, 9);
  std::vector<std::byte> out(1'000);
  auto op = joiner.engine->fetch(id_of(9), 1, 1, 0, out, 50 * kMillisecond);
  const Outcome outcome = joiner.finish(op.value());
  EXPECT_EQ(outcome.code, Code::deadline);
  EXPECT_GE(outcome.elapsed, 50 * kMillisecond);
  joiner.await<OpEnded>();

  op = joiner.engine->fetch(id_of(9), 1, 1, 0, out, kPatience);
  joiner.engine->abort(op.value());
  EXPECT_EQ(joiner.code(op.value()), Code::aborted);
}

FrameHeader request_for(std::uint64_t revision, std::uint32_t buffer, std::uint64_t id) {
  FrameHeader header;
  header.type = FrameType::state_request;
  header.length = 8;
  header.epoch = revision;
  header.channel = buffer;
  header.sequence = id;
  return header;
}

std::vector<std::byte> little_endian(std::uint64_t value) {
  std::vector<std::byte> bytes(8);
  for (std::size_t i = 0; i < 8; ++i) {
    bytes[i] = static_cast<std::byte>(value >> (8 * i));
  }
  return bytes;
}

// A joiner that reads nothing and asks for ever: the donor bounds what it keeps for it.
TEST_P(StateTransfer, AGreedyJoinerIsRefusedBeyondTheBound) {
  const auto shared = publish(donor, 1, 32u << 20);
  settle();
  RawPeer greedy = linked_raw_peer(donor, 9);
  constexpr std::uint64_t kRequests = limits::kMaxStateRequestsPerPeer + 40;
  for (std::uint64_t id = 1; id <= kRequests; ++id) {
    greedy.say(request_for(1, 1, id), little_endian(32u << 20));
  }
  greedy.say(request_for(1, 1, 999), little_endian(limits::kMaxStateRequestBytes + 1));
  // Refusals overtake the bytes.
  std::size_t refused = 0;
  std::size_t bytes = 0;
  while (refused < 41 && bytes < (64u << 20)) {
    const auto header = parse_header(greedy.hear(kHeaderBytes));
    ASSERT_TRUE(header.ok()) << header.error().message;
    (void)greedy.hear(header.value().length);
    bytes += header.value().length;
    refused += header.value().type == FrameType::state_nack ? 1 : 0;
  }
  EXPECT_EQ(refused, 41u);
  greedy.reset();
  EXPECT_EQ(donor.await_down(id_of(9)).reason, LinkEnd::reset);
  donor.engine->unpublish();
  await_freed(shared);
}

TEST_P(StateTransfer, StateThatWasNotAskedForEndsTheLink) {
  RawPeer liar = linked_raw_peer(joiner, 9);
  std::vector<std::byte> out(1'000, std::byte{1});
  auto op = joiner.engine->fetch(id_of(9), 1, 1, 500, out, kPatience);
  const auto asked = parse_header(liar.hear(kHeaderBytes));
  ASSERT_TRUE(asked.ok());
  FrameHeader header = request_for(1, 1, asked.value().sequence);
  header.type = FrameType::state_data;
  header.length = 600;
  header.offset = 1'000;  // 600 bytes from there are beyond what was asked for
  liar.say(header, std::vector<std::byte>(600));
  EXPECT_EQ(joiner.await_down(id_of(9)).reason, LinkEnd::protocol);
  EXPECT_EQ(joiner.code(op.value()), Code::peer_lost);
  EXPECT_TRUE(std::all_of(out.begin(), out.end(),
                          [](std::byte one) { return one == std::byte{1}; }));
}

TEST_P(StateTransfer, OpsRunWhileStateIsFetched) {
  constexpr std::size_t kBytes = 32u << 20;
  const auto shared = publish(donor, 1, kBytes);
  const View view{1, {donor.id, joiner.id}};
  donor.install(view);
  joiner.install(view);
  std::vector<std::byte> state(kBytes);
  const OpId fetching = fetch(1, 1, 0, state);
  const std::vector<float> in(300'000, 1);
  std::vector<float> out_a(in.size());
  std::vector<float> out_b(in.size());
  for (int round = 0; round < 20; ++round) {
    const OpId a = donor.all_reduce(in, out_a);
    const OpId b = joiner.all_reduce(in, out_b);
    ASSERT_EQ(donor.code(a), Code::ok);
    ASSERT_EQ(joiner.code(b), Code::ok);
    ASSERT_TRUE(std::all_of(out_b.begin(), out_b.end(), [](float x) { return x == 2; }));
  }
  EXPECT_EQ(joiner.code(fetching), Code::ok);
  EXPECT_TRUE(state == shared.lock()->tensor);
}

}  // namespace
}  // namespace reef::testing
