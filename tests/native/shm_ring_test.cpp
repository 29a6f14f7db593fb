// A ring alone: what wraps, what is full, what is corrupt, and that no bell is lost.
#include <gtest/gtest.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <thread>
#include <vector>

#include "atoll/base/time.h"
#include "atoll/net/shm_ring.h"
#include "atoll/net/wakeup.h"

namespace reef {
namespace {

constexpr std::size_t kCapacity = ShmMemory::kMinCapacity;

class Ring : public ::testing::Test {
 protected:
  ShmMemory memory = std::move(ShmMemory::create(kCapacity).value());
  RingView view = memory.ring(0);
  RingWriter writer{view};
  RingReader reader{view};

  void write(std::size_t bytes, std::byte value) {
    const auto space = writer.space(bytes).value();
    ASSERT_GE(space.size(), bytes);
    std::memset(space.data(), static_cast<int>(value), bytes);
    writer.commit(bytes);
  }
  void expect(std::size_t bytes, std::byte value) {
    const auto there = reader.readable(bytes).value();
    ASSERT_GE(there.size(), bytes);
    EXPECT_TRUE(std::all_of(there.begin(), there.begin() + static_cast<std::ptrdiff_t>(bytes),
                            [value](std::byte one) { return one == value; }));
    reader.consume(bytes);
  }
};

TEST_F(Ring, AnySpanIsContiguousAcrossTheEnd) {
  for (unsigned round = 0; round < 50; ++round) {  // 3/4 of the ring each time: it wraps often
    const auto value = static_cast<std::byte>(round + 1);
    write(kCapacity / 4 * 3, value);
    EXPECT_FALSE(writer.publish());
    expect(kCapacity / 4 * 3, value);
    EXPECT_FALSE(reader.release());
  }
}

TEST_F(Ring, BothMappingsAreTheSameMemory) {
  view.data[5] = std::byte{42};
  EXPECT_EQ(view.data[kCapacity + 5], std::byte{42});
  EXPECT_NE(memory.ring(1).data[5], std::byte{42});
  const ShmMemory other =
      std::move(ShmMemory::adopt(Fd(::fcntl(memory.fd(), F_DUPFD_CLOEXEC, 0))).value());
  EXPECT_NE(other.ring(0).data, view.data);
  EXPECT_EQ(other.ring(0).data[5], std::byte{42});
  EXPECT_EQ(other.ring(0).capacity, kCapacity);
}

TEST_F(Ring, WhatIsCommittedIsSeenOnlyWhenPublished) {
  write(100, std::byte{1});
  EXPECT_EQ(reader.readable(1).value().size(), 0u);
  EXPECT_EQ(writer.unpublished(), 100u);
  (void)writer.publish();
  EXPECT_EQ(reader.readable(1).value().size(), 100u);
}

TEST_F(Ring, AFullRingTakesNothingUntilItIsReleased) {
  write(kCapacity, std::byte{1});
  (void)writer.publish();
  EXPECT_EQ(writer.space(1).value().size(), 0u);
  expect(1'000, std::byte{1});
  EXPECT_EQ(writer.space(1).value().size(), 0u);
  (void)reader.release();
  EXPECT_EQ(writer.space(1).value().size(), 1'000u);
}

TEST_F(Ring, ASleepingReaderIsRungOnceWhenWhatItWaitsForIsThere) {
  EXPECT_TRUE(reader.sleep(1'000).value());
  write(999, std::byte{1});
  EXPECT_FALSE(writer.publish());
  write(1, std::byte{1});
  EXPECT_TRUE(writer.publish());
  write(5'000, std::byte{1});
  EXPECT_FALSE(writer.publish());
  EXPECT_FALSE(reader.sleep(1'000).value());  // they are there
  write(5'000, std::byte{1});
  EXPECT_FALSE(writer.publish());  // and it does not sleep
}

TEST_F(Ring, ASleepingWriterIsRungOnceWhenThereIsSpace) {
  write(kCapacity, std::byte{1});
  (void)writer.publish();
  EXPECT_TRUE(writer.sleep(kCapacity / 2).value());
  expect(kCapacity / 2 - 1, std::byte{1});
  EXPECT_FALSE(reader.release());
  expect(1, std::byte{1});
  EXPECT_TRUE(reader.release());
  EXPECT_FALSE(reader.release());
  EXPECT_FALSE(writer.sleep(kCapacity / 2).value());
}

TEST_F(Ring, ImpossibleIndicesAreProtocolErrors) {
  write(1'000, std::byte{1});
  (void)writer.publish();
  expect(400, std::byte{1});
  (void)reader.release();
  ASSERT_TRUE(writer.space(kCapacity).ok());
  const std::uint64_t head = view.indices->head;
  for (const std::uint64_t bad : {head - 1, head + kCapacity, UINT64_MAX, std::uint64_t{0}}) {
    view.indices->head = bad;
    RingReader victim = reader;
    EXPECT_EQ(victim.readable(kCapacity).error().code, Code::protocol) << bad;
    EXPECT_EQ(RingReader(victim).sleep(kCapacity / 2).error().code, Code::protocol) << bad;
  }
  for (const std::uint64_t bad : {std::uint64_t{399}, std::uint64_t{1'001}, UINT64_MAX}) {
    view.indices->tail = bad;
    RingWriter victim = writer;
    EXPECT_EQ(victim.space(kCapacity).error().code, Code::protocol) << bad;
    EXPECT_EQ(RingWriter(victim).sleep(kCapacity).error().code, Code::protocol) << bad;
  }
}

TEST(ShmMemoryAdoption, RefusesWhatIsNotReservedSealedAndOfTheRightSize) {
  const auto memfd = [](off_t bytes, bool reserve, bool seal) {
    Fd fd(::memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    EXPECT_EQ(::ftruncate(fd.get(), bytes), 0);
    EXPECT_TRUE(!reserve || ::fallocate(fd.get(), 0, 0, bytes) == 0);
    EXPECT_TRUE(!seal || ::fcntl(fd.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) == 0);
    return fd;
  };
  constexpr off_t kRight = (64 << 10) + 2 * static_cast<off_t>(kCapacity);
  EXPECT_TRUE(ShmMemory::adopt(memfd(kRight, true, true)).ok());
  EXPECT_EQ(ShmMemory::adopt(memfd(kRight, true, false)).error().code, Code::protocol);
  EXPECT_EQ(ShmMemory::adopt(memfd(kRight, false, true)).error().code, Code::protocol);
  EXPECT_EQ(ShmMemory::adopt(memfd(kRight + 4'096, true, true)).error().code, Code::protocol);
  EXPECT_EQ(ShmMemory::adopt(memfd(0, false, true)).error().code, Code::protocol);
  EXPECT_EQ(ShmMemory::adopt(memfd(off_t{1} << 40, false, true)).error().code, Code::protocol);
  Fd pipes[2];
  int ends[2];
  ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
  pipes[0] = Fd(ends[0]);
  pipes[1] = Fd(ends[1]);
  EXPECT_EQ(ShmMemory::adopt(std::move(pipes[0])).error().code, Code::protocol);
  EXPECT_EQ(ShmMemory::adopt(Fd{}).error().code, Code::protocol);
}

// Two threads that sleep whenever they can, with pieces of all sizes: the bytes come in order, and
// a lost bell would leave both asleep.
class RingStress : public ::testing::TestWithParam<unsigned> {
 protected:
  static constexpr std::size_t kTotal = 24u << 20;
  static constexpr Nanos kPatience = 60 * kSecond;

  // False when nobody rings in time.
  static bool wait(const Wakeup& bell) {
    pollfd ready{bell.fd(), POLLIN, 0};
    const bool rung = ::poll(&ready, 1, static_cast<int>(kPatience / kMillisecond)) > 0;
    bell.silence();
    return rung;
  }
  static std::byte value_at(std::size_t index) {
    return static_cast<std::byte>(index * 167 + index / 251);
  }

  static void write_all(const RingView& view, unsigned seed, const Wakeup& own,
                        const Wakeup& peers) {
    std::mt19937 random(seed);
    RingWriter writer(view);
    for (std::size_t written = 0; written < kTotal;) {
      const std::size_t wanted = std::min<std::size_t>(
          kTotal - written, 1 + random() % (random() % 4 == 0 ? kCapacity : 700));
      const auto space = writer.space(wanted).value();
      const std::size_t bytes = std::min(space.size(), wanted);
      for (std::size_t i = 0; i < bytes; ++i) space[i] = value_at(written + i);
      writer.commit(bytes);
      written += bytes;
      if (bytes < wanted || random() % 3 == 0 || written == kTotal) {
        if (writer.publish()) peers.ring();
      }
      if (bytes < wanted && writer.sleep(1 + random() % (kCapacity / 2)).value()) {
        ASSERT_TRUE(wait(own)) << "the writer was not woken";
      }
    }
  }
  static void read_all(const RingView& view, unsigned seed, const Wakeup& own,
                       const Wakeup& peers) {
    std::mt19937 random(seed + 1'000);
    RingReader reader(view);
    for (std::size_t read = 0; read < kTotal;) {
      const std::size_t wanted = std::min<std::size_t>(
          kTotal - read, 1 + random() % (random() % 4 == 0 ? kCapacity / 2 : 700));
      const auto there = reader.readable(wanted).value();
      const std::size_t bytes = std::min(there.size(), wanted);
      std::size_t wrong = 0;
      for (std::size_t i = 0; i < bytes; ++i) wrong += there[i] != value_at(read + i) ? 1u : 0u;
      ASSERT_EQ(wrong, 0u) << "at " << read;
      reader.consume(bytes);
      read += bytes;
      if (bytes < wanted || random() % 3 == 0) {
        if (reader.release()) peers.ring();
      }
      if (bytes < wanted && reader.sleep(wanted - bytes).value()) {
        ASSERT_TRUE(wait(own)) << "the reader was not woken";
      }
    }
  }
};

TEST_P(RingStress, NoBellIsLostAndBytesComeInOrder) {
  const ShmMemory memory = std::move(ShmMemory::create(kCapacity).value());
  const Wakeup writers = std::move(Wakeup::create().value());
  const Wakeup readers = std::move(Wakeup::create().value());
  std::thread writing([&] { write_all(memory.ring(0), GetParam(), writers, readers); });
  read_all(memory.ring(0), GetParam(), readers, writers);
  writing.join();
}

INSTANTIATE_TEST_SUITE_P(Seeds, RingStress, ::testing::Range(1u, 9u));

}  // namespace
}  // namespace reef
