// The joiner's and the donor's machines, without sockets.
#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "atoll/base/endian.h"
#include "atoll/base/limits.h"
#include "atoll/engine/donor.h"
#include "atoll/engine/fetcher.h"

namespace reef {
namespace {

PeerId peer(std::uint8_t number) {
  PeerId id;
  id.bytes[3] = number;
  return id;
}

struct Joiner {
  Fetcher fetcher;
  std::vector<FetchAsk> asked;
  std::vector<FetchEnd> ended;
  std::vector<std::byte> memory = std::vector<std::byte>(1'000);

  void pump() {
    FetchAction action;
    while (fetcher.next(action)) {
      if (auto* ask = std::get_if<FetchAsk>(&action)) {
        asked.push_back(*ask);
      } else {
        ended.push_back(std::get<FetchEnd>(action));
      }
    }
  }
  void start(OpId op, std::size_t bytes, Nanos deadline = kNever, std::uint32_t buffer = 1) {
    FetchRequest request;
    request.op = op;
    request.donor = peer(1);
    request.revision = buffer == 0 ? kAnyRevision : 6;
    request.buffer = buffer;
    request.offset = 100;
    request.out = std::span(memory).first(bytes);
    request.deadline = deadline;
    fetcher.start(request);
    pump();
  }
  // A frame of the donor's answer, as the shell hands it over.
  Status hear(FrameHeader header, bool deliver = true) {
    Destination destination;
    std::vector<std::byte> own(header.length);
    if (header.length > 0) {
      destination = fetcher.place(peer(1), header);
    }
    pump();
    if (!deliver) {
      return Unit{};
    }
    const std::span<const std::byte> payload =
        destination.span.empty() ? std::span<const std::byte>(own) : destination.span;
    Status status = fetcher.deliver(peer(1), header, payload);
    pump();
    return status;
  }
};

FrameHeader data(OpId op, std::uint64_t offset, std::uint32_t length, bool last = false,
                 std::uint64_t revision = 6, std::uint32_t buffer = 1) {
  FrameHeader header;
  header.type = FrameType::state_data;
  header.sequence = op;
  header.channel = buffer;
  header.epoch = revision;
  header.offset = offset;
  header.length = length;
  header.phase = last ? SendQueue::kLastPhase : 0;
  return header;
}

TEST(Fetcher, FramesMayComeInAnyOrder) {
  Joiner joiner;
  joiner.start(1, 30);
  ASSERT_EQ(joiner.asked.size(), 1u);
  EXPECT_EQ(joiner.asked[0].length, 30u);
  EXPECT_EQ(joiner.asked[0].header.offset, 100u);
  EXPECT_TRUE(joiner.hear(data(1, 120, 10, true)).ok());
  EXPECT_TRUE(joiner.hear(data(1, 100, 10)).ok());
  EXPECT_TRUE(joiner.ended.empty());
  EXPECT_TRUE(joiner.hear(data(1, 110, 10)).ok());
  ASSERT_EQ(joiner.ended.size(), 1u);
  EXPECT_EQ(joiner.ended[0].code, Code::ok);
  EXPECT_EQ(joiner.ended[0].revision, 6u);
  EXPECT_FALSE(joiner.fetcher.owns(1));
}

TEST(Fetcher, AShorterManifestEndsWithItsLastFrame) {
  Joiner joiner;
  joiner.start(1, 1'000, kNever, 0);
  EXPECT_TRUE(joiner.hear(data(1, 100, 7, true, 44, 0)).ok());
  ASSERT_EQ(joiner.ended.size(), 1u);
  EXPECT_EQ(joiner.ended[0].code, Code::ok);
  EXPECT_EQ(joiner.ended[0].length, 7u);
  EXPECT_EQ(joiner.ended[0].revision, 44u);
}

TEST(Fetcher, FramesThatDoNotFitAreRefusedAndTouchNothing) {
  const std::vector<FrameHeader> bad = {
      data(1, 99, 10),        data(1, 121, 10),     data(1, 100, 31),       data(1, UINT64_MAX, 1),
      data(1, 0, 10),         data(1, 100, 10, false, 7), data(1, 100, 10, false, 6, 2),
      data(1, 131, 0, true),  data(1, 100, 10, false, kAnyRevision)};
  for (const FrameHeader& header : bad) {
    Joiner joiner;
    joiner.start(1, 30);
    EXPECT_FALSE(joiner.hear(header).ok()) << header.offset << "+" << header.length;
    EXPECT_TRUE(joiner.ended.empty());
  }
}

TEST(Fetcher, MoreBytesThanWereAskedForAreRefused) {
  Joiner joiner;
  joiner.start(1, 30);
  EXPECT_TRUE(joiner.hear(data(1, 100, 20)).ok());
  EXPECT_FALSE(joiner.hear(data(1, 100, 20)).ok());  // again
}

TEST(Fetcher, OneRevisionIsServedToItsEnd) {
  Joiner joiner;
  joiner.start(1, 30, kNever, 0);
  EXPECT_TRUE(joiner.hear(data(1, 100, 10, false, 3, 0)).ok());
  EXPECT_FALSE(joiner.hear(data(1, 110, 10, false, 4, 0)).ok());
}

TEST(Fetcher, LateAndUnknownFramesAreIgnored) {
  Joiner joiner;
  EXPECT_TRUE(joiner.hear(data(77, 0, 10)).ok());
  joiner.start(1, 10, 50);
  joiner.fetcher.tick(50);
  joiner.pump();
  ASSERT_EQ(joiner.ended.size(), 1u);
  EXPECT_EQ(joiner.ended[0].code, Code::deadline);
  EXPECT_TRUE(joiner.fetcher.place(peer(1), data(1, 100, 5)).span.empty());
  EXPECT_TRUE(joiner.hear(data(1, 105, 5, true)).ok());
  EXPECT_EQ(joiner.ended.size(), 1u);
}

// What ended here early is still outstanding there.
TEST(Fetcher, AnEndedFetchKeepsItsPlaceUntilItsAnswerIsOver) {
  Joiner joiner;
  for (OpId op = 1; op <= limits::kMaxStateRequestsPerPeer; ++op) {
    joiner.start(op, 10, op == 1 ? 50 : kNever);
  }
  joiner.start(1'000, 10);
  joiner.start(1'001, 10, 60);
  EXPECT_EQ(joiner.asked.size(), limits::kMaxStateRequestsPerPeer);
  EXPECT_EQ(joiner.fetcher.tick(50), 60);
  joiner.pump();
  EXPECT_EQ(joiner.ended.size(), 1u);
  EXPECT_EQ(joiner.asked.size(), limits::kMaxStateRequestsPerPeer);
  // The rest of its answer arrives, though nothing is kept of it: the next may be asked for.
  EXPECT_TRUE(joiner.hear(data(1, 100, 4), false).ok());
  EXPECT_EQ(joiner.asked.size(), limits::kMaxStateRequestsPerPeer);
  EXPECT_TRUE(joiner.hear(data(1, 104, 6, true), false).ok());
  ASSERT_EQ(joiner.asked.size(), limits::kMaxStateRequestsPerPeer + 1);
  EXPECT_EQ(joiner.asked.back().header.sequence, 1'000u);
  // One that was never asked for just goes.
  EXPECT_EQ(joiner.fetcher.tick(60), kNever);
  joiner.pump();
  EXPECT_EQ(joiner.ended.size(), 2u);
  EXPECT_FALSE(joiner.fetcher.owns(1'001));
}

TEST(Fetcher, EveryFetchEndsExactlyOnce) {
  Joiner joiner;
  joiner.start(1, 10);
  joiner.start(2, 10);
  joiner.start(3, 10);
  joiner.fetcher.abort(1);
  joiner.fetcher.abort(1);
  joiner.pump();
  ASSERT_EQ(joiner.ended.size(), 1u);
  EXPECT_EQ(joiner.ended[0].code, Code::aborted);
  joiner.fetcher.link_down(peer(2));
  joiner.fetcher.link_down(peer(1));
  joiner.fetcher.link_down(peer(1));
  joiner.pump();
  ASSERT_EQ(joiner.ended.size(), 3u);
  EXPECT_EQ(joiner.ended[1].code, Code::peer_lost);
  joiner.start(4, 10);
  joiner.fetcher.close();
  joiner.fetcher.close();
  joiner.pump();
  ASSERT_EQ(joiner.ended.size(), 4u);
  EXPECT_EQ(joiner.ended[3].code, Code::closed);
}

// ---- the send queue ------------------------------------------------------------------------------

OutFrame frame_of(FrameType type, OpId op, std::span<const std::byte> payload = {}) {
  FrameHeader header;
  header.type = type;
  header.length = static_cast<std::uint32_t>(payload.size());
  OutFrame frame;
  frame.header = encode_header(header);
  frame.payload = payload;
  frame.op = op;
  return frame;
}

FrameHeader header_of(const OutFrame& frame) { return parse_header(frame.header).value(); }

TEST(SendQueue, ControlGoesFirstAndStateIsNotStarved) {
  const std::vector<std::byte> bytes(3 * SendQueue::kStateChunkBytes - 1);
  SendQueue queue;
  FrameHeader state;
  state.type = FrameType::state_data;
  state.offset = 5;
  queue.push_donation(Donation{state, bytes, nullptr});
  queue.data_waiting();
  std::uint32_t data = 2 * SendQueue::kDataPerState;
  queue.push_control(frame_of(FrameType::done, 0));
  std::vector<FrameType> order;
  std::vector<FrameHeader> states;
  OutFrame frame;
  const auto pull = [&data](OutFrame& next) {
    if (data == 0) return false;
    --data;
    next = frame_of(FrameType::data, 1);
    return true;
  };
  while (queue.take(frame, pull)) {
    order.push_back(header_of(frame).type);
    if (order.back() == FrameType::state_data) {
      states.push_back(header_of(frame));
    }
  }
  EXPECT_TRUE(queue.empty());
  EXPECT_EQ(order.front(), FrameType::done);
  EXPECT_EQ(order[1 + SendQueue::kDataPerState], FrameType::state_data);
  EXPECT_EQ(order.size(), 1 + 2 * SendQueue::kDataPerState + 3);
  ASSERT_EQ(states.size(), 3u);
  EXPECT_EQ(states[0].offset, 5u);
  EXPECT_EQ(states[1].offset, 5u + SendQueue::kStateChunkBytes);
  EXPECT_EQ(states[1].phase, 0);
  EXPECT_EQ(states[2].phase, SendQueue::kLastPhase);
  EXPECT_EQ(states[2].length, SendQueue::kStateChunkBytes - 1);
}

TEST(SendQueue, PurgeDropsOneOpsFrames) {
  SendQueue queue;
  queue.push_control(frame_of(FrameType::data, 1));
  queue.push_control(frame_of(FrameType::data, 2));
  queue.push_control(frame_of(FrameType::data, 1));
  queue.push_control(frame_of(FrameType::done, 0));
  queue.purge(1);
  OutFrame frame;
  const auto no_data = [](OutFrame&) { return false; };
  ASSERT_TRUE(queue.take(frame, no_data));
  EXPECT_EQ(frame.op, 2u);
  ASSERT_TRUE(queue.take(frame, no_data));
  EXPECT_EQ(frame.op, 0u);
  EXPECT_FALSE(queue.take(frame, no_data));
}

// ---- the donor -----------------------------------------------------------------------------------

FrameHeader request(std::uint64_t revision, std::uint32_t buffer, std::uint64_t offset) {
  FrameHeader header;
  header.type = FrameType::state_request;
  header.epoch = revision;
  header.channel = buffer;
  header.offset = offset;
  header.sequence = 3;
  return header;
}

TEST(Donor, AnswersWithBytesOrWithWhatItHolds) {
  const auto served = [](const Donor& donor, const FrameHeader& header, std::uint64_t length,
                         std::size_t outstanding = 0) -> std::int64_t {
    const auto answer = donor.answer(header, length, outstanding);
    const auto* donation = std::get_if<Donation>(&answer);
    return donation == nullptr ? -1 : static_cast<std::int64_t>(donation->rest.size());
  };
  Donor donor;
  EXPECT_EQ(served(donor, request(kAnyRevision, 0, 0), 1), -1);
  const std::vector<std::byte> manifest(10);
  const std::vector<std::byte> tensor(100);
  donor.publish(std::make_shared<const Engine::Published>(
      Engine::Published{4, {manifest, tensor}, nullptr}));
  EXPECT_EQ(served(donor, request(kAnyRevision, 0, 0), 5), 5);
  EXPECT_EQ(served(donor, request(kAnyRevision, 0, 0), 500), 10);
  EXPECT_EQ(served(donor, request(4, 0, 4), 500), 6);
  EXPECT_EQ(served(donor, request(kAnyRevision, 0, 11), 0), -1);
  EXPECT_EQ(served(donor, request(kAnyRevision, 1, 0), 1), -1);
  EXPECT_EQ(served(donor, request(3, 0, 0), 1), -1);
  EXPECT_EQ(served(donor, request(4, 1, 0), 100), 100);
  EXPECT_EQ(served(donor, request(4, 1, 1), 100), -1);
  EXPECT_EQ(served(donor, request(4, 1, UINT64_MAX), 100), -1);
  EXPECT_EQ(served(donor, request(4, 2, 0), 1), -1);
  EXPECT_EQ(served(donor, request(4, 0, 0), limits::kMaxStateRequestBytes), 10);
  EXPECT_EQ(served(donor, request(4, 0, 0), limits::kMaxStateRequestBytes + 1), -1);
  EXPECT_EQ(served(donor, request(4, 1, 0), 1, limits::kMaxStateRequestsPerPeer - 1), 1);
  EXPECT_EQ(served(donor, request(4, 1, 0), 1, limits::kMaxStateRequestsPerPeer), -1);
  const auto nack = std::get<OutFrame>(donor.answer(request(3, 1, 0), 1, 0));
  EXPECT_EQ(load_le<std::uint64_t>(nack.payload.data()), 4u);
}

}  // namespace
}  // namespace reef
