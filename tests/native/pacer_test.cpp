// How a link's pace follows what its path carries, over a line with a queue.
#include "atoll/net/pacer.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace reef {
namespace {

// A line of so many bytes a second and a queue of 100 ms before it; what does not fit is sent again.
class Line {
 public:
  explicit Line(double rate) : bytes_per_s(rate) {}

  // The link sends at its pace for a while, and is told what became of it.
  void run(Pacer& pacer, int times, bool busy = true) {
    for (int i = 0; i < times; ++i) {
      const double seconds = static_cast<double>(kPaceEvery) * 1e-9;
      const double sent = pacer.bytes_per_s() * seconds;
      const double came = std::min(queue_ + sent, bytes_per_s * seconds);
      const double fits = std::min(queue_ + sent - came, kQueueS * bytes_per_s);
      const double lost = queue_ + sent - came - fits + lost_share * sent;
      queue_ = fits;
      sent_ += sent;
      acked_ += came;
      resent_ += lost;
      queued_s_ = queue_ / bytes_per_s;
      now_ += kPaceEvery;
      pacer.observe(counts(), busy ? 0 : kNever, now_);
      pacer.follow_alone(now_);
    }
  }

  [[nodiscard]] PathCounts counts() const {
    PathCounts counts;
    counts.sent_bytes = static_cast<std::uint64_t>(sent_);
    counts.acked_bytes = static_cast<std::uint64_t>(acked_);
    counts.resent_bytes = static_cast<std::uint64_t>(resent_);
    counts.least_round_trip_s = kRoundTripS;
    counts.round_trip_s = kRoundTripS + queued_s_;
    return counts;
  }
  [[nodiscard]] double resent() const { return resent_; }
  [[nodiscard]] double acked() const { return acked_; }
  void begin_anew() { sent_ = acked_ = resent_ = 0; }

  double bytes_per_s;
  double lost_share = 0;

 private:
  static constexpr double kQueueS = 0.1;
  static constexpr double kRoundTripS = 0.08;
  double queue_ = 0;
  double queued_s_ = 0;
  double sent_ = 0;
  double acked_ = 0;
  double resent_ = 0;
  Nanos now_ = kSecond;
};

TEST(Pacer, WithoutFiguresNothingIsHeldBack) {
  Pacer pacer;
  EXPECT_EQ(pacer.bytes_per_s(), 0);
  Line line(8e6);
  line.run(pacer, 10);
  EXPECT_EQ(pacer.bytes_per_s(), 0);
  pacer.expect(8e6);
  EXPECT_EQ(pacer.bytes_per_s(), 8e6);
  pacer.expect(0);
  EXPECT_EQ(pacer.bytes_per_s(), 0);
}

TEST(Pacer, FindsALineThatIsThreeTimesAsFastAsWasMeasured) {
  Pacer pacer;
  pacer.expect(8e6 / 3);
  Line line(8e6);
  line.run(pacer, 20);
  EXPECT_GT(pacer.bytes_per_s(), 0.9 * line.bytes_per_s);
  const double before = line.acked();
  line.run(pacer, 200);
  EXPECT_GT(line.acked() - before, 0.95 * 20 * line.bytes_per_s) << "the line is full";
  EXPECT_EQ(line.resent(), 0) << "no queue overflows";
}

TEST(Pacer, GoesDownWithTheLineAndUpAgain) {
  Pacer pacer;
  pacer.expect(8e6);
  Line line(8e6);
  line.run(pacer, 20);
  line.bytes_per_s = 5e6;
  line.run(pacer, 50);
  EXPECT_LT(pacer.bytes_per_s(), 1.1 * line.bytes_per_s);
  EXPECT_GT(pacer.bytes_per_s(), 0.85 * line.bytes_per_s);
  line.bytes_per_s = 8e6;
  line.run(pacer, 60);
  EXPECT_GT(pacer.bytes_per_s(), 0.9 * line.bytes_per_s);
}

TEST(Pacer, NeverGoesBelowAQuarterOfWhatWasMeasured) {
  Pacer pacer;
  pacer.expect(8e6);
  Line line(1e6);
  line.run(pacer, 200);
  EXPECT_EQ(pacer.bytes_per_s(), 2e6);
}

TEST(Pacer, AFigureThatIsNextToNothingHoldsNobodyBackForLong) {
  Pacer pacer;
  pacer.expect(1);
  Line line(3e6);
  line.run(pacer, 40);
  EXPECT_GT(pacer.bytes_per_s(), 0.9 * line.bytes_per_s);
}

TEST(Pacer, APacketLostNowAndThenIsNoQueue) {
  Pacer pacer;
  pacer.expect(4e6);
  Line line(8e6);
  line.lost_share = 0.005;
  line.run(pacer, 100);
  EXPECT_GT(pacer.bytes_per_s(), 0.9 * line.bytes_per_s);
}

TEST(Pacer, WhoHadNothingToSendHasLearnedNothing) {
  Pacer pacer;
  pacer.expect(4e6);
  Line line(8e6);
  line.run(pacer, 50, false);
  EXPECT_EQ(pacer.bytes_per_s(), 4e6);
}

TEST(Pacer, WhatCameBeforeARoundTripOfSendingSaysNothing) {
  Pacer pacer;
  pacer.expect(4e6);
  PathCounts counts;
  counts.sent_bytes = 1;
  counts.round_trip_s = counts.least_round_trip_s = 0.08;
  const Nanos begun = kSecond;
  const auto look = [&](Nanos at) {
    counts.sent_bytes += 400'000;
    counts.acked_bytes += 100'000;
    pacer.observe(counts, begun, at);
    return pacer.sample().has_value();
  };
  EXPECT_FALSE(look(begun)) << "the first look";
  EXPECT_FALSE(look(begun + 70 * kMillisecond));
  EXPECT_FALSE(look(begun + 170 * kMillisecond)) << "half of that was a way without anything on it";
  EXPECT_TRUE(look(begun + 270 * kMillisecond));
  EXPECT_NEAR(pacer.sample()->delivered_bytes_per_s, 1e6, 1);
}

TEST(Pacer, AnotherConnectionCountsFromItsBeginning) {
  Pacer pacer;
  pacer.expect(4e6);
  Line line(4e6);
  line.run(pacer, 20);
  const double learned = pacer.bytes_per_s();
  line.begin_anew();
  line.run(pacer, 1);
  EXPECT_EQ(pacer.bytes_per_s(), learned);
}

TEST(Pacer, AFigureThatIsAlikeChangesNothing) {
  Pacer pacer;
  pacer.expect(4e6);
  Line line(8e6);
  line.run(pacer, 50);
  const double learned = pacer.bytes_per_s();
  pacer.expect(4.5e6);
  EXPECT_EQ(pacer.bytes_per_s(), learned);
  pacer.expect(2e6);
  EXPECT_EQ(pacer.bytes_per_s(), 2e6);
}

TEST(Budget, KeepsThePaceOnAverageInSmallBursts) {
  Budget budget;
  constexpr double kPace = 1e7;
  constexpr std::size_t kChunk = 16u << 10;
  Nanos now = kSecond;
  double sent = 0;
  double burst = 0;
  while (now < 3 * kSecond) {
    burst = 0;
    while (budget.open(kPace, now)) {
      budget.spend(kChunk);
      burst += kChunk;
    }
    sent += burst;
    ASSERT_GT(budget.opens_at(kPace), now);
    now = budget.opens_at(kPace);
    if (now > kSecond + 100 * kMillisecond) {
      ASSERT_LE(burst, kPace * 0.004 + kChunk);
    }
  }
  EXPECT_NEAR(sent, 2 * kPace, 0.03 * 2 * kPace);
}

TEST(Budget, AfterAPauseNotAllOfItMayGoAtOnce) {
  Budget budget;
  EXPECT_TRUE(budget.open(1e6, kSecond));
  budget.spend(100'000);
  EXPECT_FALSE(budget.open(1e6, kSecond + 79 * kMillisecond));
  EXPECT_EQ(budget.opens_at(1e6) / kMillisecond, 1000 + 84);
  EXPECT_TRUE(budget.open(1e6, 100 * kSecond));
  budget.spend(20'000);
  EXPECT_FALSE(budget.open(1e6, 100 * kSecond));
}

}  // namespace
}  // namespace reef
