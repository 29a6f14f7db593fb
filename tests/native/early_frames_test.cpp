// The store of frames that came before their time: order, bounds, forgetting.

#include "atoll/collective/early_frames.h"

#include <gtest/gtest.h>

#include "atoll/base/limits.h"

namespace reef {
namespace {

PeerId peer(std::uint8_t number) {
  PeerId id;
  id.bytes[0] = number;
  return id;
}

FrameHeader frame(FrameType type, Epoch epoch, Channel channel, Sequence sequence,
                  std::uint16_t phase = 0) {
  FrameHeader header;
  header.type = type;
  header.epoch = epoch;
  header.channel = channel;
  header.sequence = sequence;
  header.phase = phase;
  return header;
}

TEST(EarlyFrames, GivesBackOneOpsFramesInOrderOnce) {
  EarlyFrames early;
  const std::vector<std::byte> payload(8, std::byte{3});
  ASSERT_TRUE(early.keep(peer(1), frame(FrameType::data, 1, 2, 3, 0), payload).ok());
  ASSERT_TRUE(early.keep(peer(1), frame(FrameType::data, 1, 2, 4, 9), payload).ok());
  ASSERT_TRUE(early.keep(peer(2), frame(FrameType::data, 1, 2, 3, 9), payload).ok());
  ASSERT_TRUE(early.keep(peer(1), frame(FrameType::data, 1, 2, 3, 1), {}).ok());
  const auto frames = early.take(peer(1), {1, 2, 3});
  ASSERT_EQ(frames.size(), 2u);
  EXPECT_EQ(frames[0].header.phase, 0);
  EXPECT_EQ(frames[0].payload, payload);
  EXPECT_EQ(frames[1].header.phase, 1);
  EXPECT_TRUE(early.take(peer(1), {1, 2, 3}).empty());
  EXPECT_FALSE(early.empty());
  EXPECT_EQ(early.take(peer(1), {1, 2, 4}).size(), 1u);
  EXPECT_EQ(early.take(peer(2), {1, 2, 3}).size(), 1u);
  EXPECT_TRUE(early.empty());
}

TEST(EarlyFrames, BoundsTheBytesOfEachPeer) {
  EarlyFrames early;
  const std::vector<std::byte> payload(limits::kMaxPayload);
  const std::size_t fit = limits::kMaxEarlyBytesPerPeer / limits::kMaxPayload;
  for (std::size_t i = 0; i < fit; ++i) {
    ASSERT_TRUE(early.keep(peer(1), frame(FrameType::data, 1, 0, i), payload).ok());
  }
  const Status more =
      early.keep(peer(1), frame(FrameType::data, 1, 0, fit), std::span(payload).first(1));
  ASSERT_FALSE(more.ok());
  EXPECT_EQ(more.error().code, Code::protocol);
  EXPECT_TRUE(early.keep(peer(2), frame(FrameType::data, 1, 0, 0), payload).ok());
  // What is taken makes room.
  EXPECT_EQ(early.take(peer(1), {1, 0, 0}).size(), 1u);
  EXPECT_TRUE(early.keep(peer(1), frame(FrameType::data, 1, 0, fit), payload).ok());
}

TEST(EarlyFrames, BoundsTheNumberOfFramesOfEachPeer) {
  EarlyFrames early;
  for (std::size_t i = 0; i < limits::kMaxEarlyFramesPerPeer; ++i) {
    ASSERT_TRUE(early.keep(peer(1), frame(FrameType::done, 1, 0, i / 7), {}).ok());
  }
  EXPECT_FALSE(early.keep(peer(1), frame(FrameType::done, 1, 0, 0), {}).ok());
  EXPECT_TRUE(early.keep(peer(2), frame(FrameType::done, 1, 0, 0), {}).ok());
  early.drop(peer(1));
  EXPECT_TRUE(early.keep(peer(1), frame(FrameType::done, 1, 0, 0), {}).ok());
}

TEST(EarlyFrames, ForgetsOlderEpochs) {
  EarlyFrames early;
  for (Epoch epoch = 1; epoch <= 4; ++epoch) {
    for (std::uint8_t number = 1; number <= 3; ++number) {
      ASSERT_TRUE(early.keep(peer(number), frame(FrameType::done, epoch, 0, 0), {}).ok());
    }
  }
  EXPECT_EQ(early.drop_before(3), 6u);
  EXPECT_TRUE(early.take(peer(1), {2, 0, 0}).empty());
  EXPECT_EQ(early.take(peer(1), {3, 0, 0}).size(), 1u);
  EXPECT_EQ(early.drop_before(99), 5u);
  EXPECT_TRUE(early.empty());
}

TEST(EarlyFrames, AFailedExchangeKeepsNothingButItsFailure) {
  EarlyFrames early;
  const Channel channel = 5 | kExchangeBit;
  const std::vector<std::byte> payload(1'000);
  ASSERT_TRUE(early.keep(peer(1), frame(FrameType::start, 1, channel, 7), payload).ok());
  ASSERT_TRUE(early.keep(peer(1), frame(FrameType::data, 1, channel, 7), payload).ok());
  ASSERT_TRUE(early.keep(peer(1), frame(FrameType::done, 1, channel, 7, 2), {}).ok());
  ASSERT_TRUE(early.keep(peer(1), frame(FrameType::data, 1, channel, 7), payload).ok());
  const auto frames = early.take(peer(1), {1, channel, 7});
  ASSERT_EQ(frames.size(), 1u);
  EXPECT_EQ(frames[0].header.type, FrameType::done);
}

TEST(EarlyFrames, ExchangesThatNeverBeginDoNotPileUp) {
  EarlyFrames early;
  const Channel channel = kExchangeBit;
  const std::vector<std::byte> payload(4'096);  // 128 MiB in all
  for (Sequence tag = 0; tag < 2 * limits::kMaxEarlyFramesPerPeer; ++tag) {
    ASSERT_TRUE(early.keep(peer(1), frame(FrameType::data, 1, channel, tag), payload).ok());
    ASSERT_TRUE(early.keep(peer(1), frame(FrameType::done, 1, channel, tag, 2), {}).ok());
  }
  EXPECT_TRUE(early.take(peer(1), {1, channel, 0}).empty());
  EXPECT_EQ(early.take(peer(1), {1, channel, 2 * limits::kMaxEarlyFramesPerPeer - 1}).size(), 1u);
}

}  // namespace
}  // namespace reef
