// The book of one slot: what is kept, what is sent again, and that nothing is lost or comes twice.
#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <random>
#include <vector>

#include "atoll/net/slot_log.h"

namespace reef {
namespace {

OutFrame frame_of(std::uint64_t number, OpId op = 0, FrameType type = FrameType::data) {
  FrameHeader header;
  header.type = type;
  header.sequence = number;
  OutFrame frame;
  frame.header = encode_header(header);
  frame.op = op;
  return frame;
}

std::uint64_t number_of(const OutFrame& frame) {
  return parse_header(frame.header).value().sequence;
}

std::vector<std::uint64_t> take_all(SlotLog& log) {
  std::vector<std::uint64_t> numbers;
  for (OutFrame frame; log.take_again(frame);) {
    numbers.push_back(number_of(frame));
  }
  return numbers;
}

std::vector<OutFrame> frames_of(const std::vector<std::uint64_t>& numbers) {
  std::vector<OutFrame> frames;
  for (const std::uint64_t number : numbers) {
    frames.push_back(frame_of(number));
  }
  return frames;
}

using Numbers = std::vector<std::uint64_t>;

TEST(SlotLog, SendsAgainWhatTheOtherSideHasNotReceived) {
  SlotLog log;
  for (std::uint64_t number = 1; number <= 5; ++number) {
    log.wrote(frame_of(number));
  }
  ASSERT_TRUE(log.acknowledged(1).ok());
  log.lost(frames_of({6, 7}));
  ASSERT_TRUE(log.resume(3).ok());
  EXPECT_EQ(take_all(log), (Numbers{4, 5, 6, 7}));
  // Counting goes on from 3.
  log.wrote(frame_of(4));
  EXPECT_FALSE(log.acknowledged(5).ok());
  EXPECT_TRUE(log.acknowledged(4).ok());
}

TEST(SlotLog, KeepsTheOrderOverSeveralLosses) {
  SlotLog log;
  for (std::uint64_t number = 1; number <= 4; ++number) {
    log.wrote(frame_of(number));
  }
  log.lost(frames_of({5}));
  ASSERT_TRUE(log.resume(1).ok());
  OutFrame frame;
  ASSERT_TRUE(log.take_again(frame));  // 2 goes out, 3 is half written, 4 and 5 still wait
  log.wrote(std::move(frame));
  ASSERT_TRUE(log.take_again(frame));
  std::vector<OutFrame> half;
  half.push_back(std::move(frame));
  log.lost(std::move(half));
  ASSERT_TRUE(log.resume(1).ok());
  EXPECT_EQ(take_all(log), (Numbers{2, 3, 4, 5}));
}

TEST(SlotLog, HeartbeatsAreNeitherCountedNorSentAgain) {
  SlotLog log;
  log.wrote(frame_of(1));
  log.wrote(frame_of(0, 0, FrameType::heartbeat));
  log.wrote(frame_of(2));
  std::vector<OutFrame> unsent;
  unsent.push_back(frame_of(0, 0, FrameType::heartbeat));
  unsent.push_back(frame_of(3));
  log.lost(std::move(unsent));
  EXPECT_FALSE(log.acknowledged(3).ok());
  ASSERT_TRUE(log.resume(1).ok());
  EXPECT_EQ(take_all(log), (Numbers{2, 3}));
}

TEST(SlotLog, AForgottenOpLeavesAHoleThatIsCounted) {
  SlotLog log;
  auto alive = std::make_shared<int>(1);
  for (std::uint64_t number = 1; number <= 6; ++number) {
    OutFrame frame = frame_of(number, number % 2 == 0 ? 8 : 9);
    frame.keep = alive;
    log.wrote(std::move(frame));
  }
  log.forget(8);
  EXPECT_EQ(alive.use_count(), 4);  // its memory is let go of at once
  ASSERT_TRUE(log.acknowledged(2).ok());  // the hole counts
  std::vector<OutFrame> unsent;
  unsent.push_back(frame_of(7, 9));
  log.lost(std::move(unsent));
  ASSERT_TRUE(log.resume(2).ok());
  log.forget(9);
  EXPECT_TRUE(take_all(log).empty());
  EXPECT_EQ(alive.use_count(), 1);
}

TEST(SlotLog, CountsThatCannotBeAreRefused) {
  SlotLog log;
  EXPECT_FALSE(log.acknowledged(1).ok());
  for (std::uint64_t number = 1; number <= 3; ++number) {
    log.wrote(frame_of(number));
  }
  EXPECT_FALSE(log.acknowledged(4).ok());
  EXPECT_FALSE(log.acknowledged(UINT64_MAX).ok());
  ASSERT_TRUE(log.acknowledged(2).ok());
  EXPECT_FALSE(log.acknowledged(1).ok());
  EXPECT_EQ(log.resume(1).error().code, Code::protocol);
  EXPECT_EQ(log.resume(4).error().code, Code::protocol);
  EXPECT_TRUE(log.resume(3).ok());
}

TEST(SlotLog, WhatIsKeptIsBounded) {
  const std::vector<std::byte> payload(SlotLog::kMostBytes / 4);
  SlotLog log;
  for (int i = 0; i < 4; ++i) {
    EXPECT_FALSE(log.full());
    OutFrame frame = frame_of(1, 5);
    frame.payload = payload;
    log.wrote(std::move(frame));
  }
  EXPECT_TRUE(log.full());
  ASSERT_TRUE(log.acknowledged(1).ok());
  EXPECT_FALSE(log.full());
  SlotLog many;
  for (std::size_t i = 0; i < SlotLog::kMostFrames; ++i) {
    EXPECT_FALSE(many.full());
    many.wrote(frame_of(i));
  }
  EXPECT_TRUE(many.full());
}

TEST(SlotLog, AnAcknowledgementIsDueAfterSoManyBytes) {
  SlotLog log;
  log.arrived(SlotLog::kBytesPerAck - 1);
  EXPECT_FALSE(log.ack_due());
  log.arrived(1);
  EXPECT_TRUE(log.ack_due());
  EXPECT_EQ(log.acknowledge(), 2u);
  EXPECT_FALSE(log.ack_due());
}

// Two ends and the connection between them: bytes are units, a frame takes one to five of them, and
// the connection dies at any unit with whatever is under way.
class Simulation {
 public:
  explicit Simulation(std::uint64_t seed) : random_(seed) {}

  void run(std::uint64_t frames) {
    const std::uint64_t last = frames;
    while (next_ <= last || under_way() > 0 || sender_.again()) {
      switch (random_() % 16) {
        case 0: die(); break;
        case 1: acknowledge(); break;
        case 2: if (random_() % 4 == 0) forget(); break;
        case 3: case 4: case 5: case 6: receive(); break;
        default: send(last); break;
      }
      if (next_ > last && queue_empty()) {
        receive();
      }
    }
  }
  // Each frame once and in order; only those of forgotten ops may be missing.
  void judge(std::uint64_t frames) const {
    ASSERT_TRUE(std::is_sorted(delivered_.begin(), delivered_.end()));
    ASSERT_EQ(std::adjacent_find(delivered_.begin(), delivered_.end()), delivered_.end());
    for (std::uint64_t number = 1; number <= frames; ++number) {
      const bool here = std::binary_search(delivered_.begin(), delivered_.end(), number);
      const bool excused =
          std::find(forgotten_.begin(), forgotten_.end(), number) != forgotten_.end();
      ASSERT_TRUE(here || excused) << number;
    }
  }

 private:
  struct Flight {
    std::uint64_t number;
    std::size_t units;
  };
  [[nodiscard]] std::size_t under_way() const { return batch_.size() + flights_.size(); }
  [[nodiscard]] bool queue_empty() const { return batch_.empty() && !sender_.again(); }

  void send(std::uint64_t last) {
    if (batch_.empty()) {
      for (std::size_t room = 1 + random_() % 3; room > 0; --room) {
        OutFrame frame;
        if (!sender_.take_again(frame)) {
          if (next_ > last) break;
          frame = frame_of(next_, 1 + next_ % 4);
          ++next_;
        }
        batch_.push_back(std::move(frame));
      }
      return;
    }
    const std::size_t units = 1 + number_of(batch_.front()) % 5;
    if (++written_ < units) return;
    written_ = 0;
    flights_.push_back({number_of(batch_.front()), units});
    sender_.wrote(std::move(batch_.front()));
    batch_.erase(batch_.begin());
  }
  void receive() {
    if (flights_.empty()) return;
    delivered_.push_back(flights_.front().number);
    receiver_.arrived(1);
    flights_.pop_front();
  }
  void acknowledge() {  // may come late, but in order
    if (acks_.size() < 3) acks_.push_back(receiver_.acknowledge());
    if (random_() % 2 == 0) {
      ASSERT_TRUE(sender_.acknowledged(acks_.front()).ok());
      acks_.pop_front();
    }
  }
  void forget() {
    const OpId op = 1 + random_() % 4;
    for (std::uint64_t number = 1; number < next_; ++number) {
      const bool here = std::binary_search(delivered_.begin(), delivered_.end(), number);
      const bool known =
          std::find(forgotten_.begin(), forgotten_.end(), number) != forgotten_.end();
      if (1 + number % 4 == op && !here && !known) forgotten_.push_back(number);
    }
    sender_.forget(op);
    const bool half = written_ > 0;  // a connection finishes what it has begun, from a copy
    if (half) batch_.front().op = 0;
    std::erase_if(batch_, [op](const OutFrame& frame) { return frame.op == op; });
  }
  void die() {
    flights_.clear();
    acks_.clear();
    written_ = 0;
    sender_.lost(std::exchange(batch_, {}));
    ASSERT_TRUE(sender_.resume(receiver_.received()).ok());
  }

  std::mt19937_64 random_;
  SlotLog sender_;
  SlotLog receiver_;
  std::uint64_t next_ = 1;
  std::vector<OutFrame> batch_;
  std::size_t written_ = 0;
  std::deque<Flight> flights_;
  std::deque<std::uint64_t> acks_;
  std::vector<std::uint64_t> delivered_;
  std::vector<std::uint64_t> forgotten_;
};

TEST(SlotLog, NothingIsLostOrComesTwiceWhereverConnectionsDie) {
  for (std::uint64_t seed = 1; seed <= 300; ++seed) {
    SCOPED_TRACE(seed);
    Simulation simulation(seed);
    simulation.run(150);
    simulation.judge(150);
    if (HasFatalFailure()) return;
  }
}

}  // namespace
}  // namespace reef
