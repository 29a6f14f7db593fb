// Links of several members that keep their pace together, over lines of fluid: what a link sends waits in its sender's
// line, travels, waits in the receiver's line, and is acknowledged.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <deque>
#include <numeric>
#include <random>
#include <vector>

#include "atoll/net/pacer.h"

namespace reef {
namespace {

constexpr std::size_t kMembers = 4;
constexpr double kLine = 24e6;  // bytes a second
constexpr double kPart = kLine / (kMembers - 1);
constexpr double kStepS = 0.001;
constexpr std::size_t kStepsOneWay = 40;
constexpr double kRoundTripS = 2 * kStepsOneWay * kStepS;
constexpr double kQueueS = 0.1;  // of a line; what does not fit is sent again
// What the kernel takes for time in queues without any.
constexpr double kNoiseS = 0.012;

using ByMember = std::array<double, kMembers>;

// One direction of a member's line, and what waits before it, by the link's other end.
struct Line {
  double bytes_per_s = kLine;
  ByMember waiting{};

  [[nodiscard]] double all() const { return std::accumulate(waiting.begin(), waiting.end(), 0.0); }
  [[nodiscard]] double seconds() const { return all() / bytes_per_s; }
  // Returns what finds no room.
  double put(std::size_t of, double bytes) {
    const double fits = std::min(bytes, std::max(0.0, kQueueS * bytes_per_s - all()));
    waiting[of] += fits;
    return bytes - fits;
  }
  ByMember serve() {
    const double part = std::min(1.0, bytes_per_s * kStepS / std::max(all(), 1.0));
    ByMember served{};
    for (std::size_t i = 0; i < kMembers; ++i) {
      served[i] = part * waiting[i];
      waiting[i] -= served[i];
    }
    return served;
  }
};

struct Way {
  Pacer pacer;
  std::deque<double> there = std::deque<double>(kStepsOneWay, 0);  // by step
  std::deque<double> back = std::deque<double>(kStepsOneWay, 0);
  double left = 0;
  double sent = 0;
  double acked = 0;
  double resent = 0;
  double wanted = 0;  // of acked
  double round_trip_s = kRoundTripS;
  Nanos sending_since = kNever;

  [[nodiscard]] bool over() const { return acked > wanted - 1; }
  [[nodiscard]] PathCounts counts() const {
    PathCounts counts;
    counts.sent_bytes = static_cast<std::uint64_t>(sent);
    counts.acked_bytes = static_cast<std::uint64_t>(acked);
    counts.resent_bytes = static_cast<std::uint64_t>(resent);
    counts.least_round_trip_s = kRoundTripS;
    counts.round_trip_s = round_trip_s;
    return counts;
  }
};

class Lines {
 public:
  void expect(double bytes_per_s) {
    for (std::size_t i = 0; i < kMembers; ++i) {
      paces[i].reset();
      for (std::size_t j = 0; j < kMembers; ++j) ways[i][j].pacer.expect(bytes_per_s);
    }
  }

  // The links of an op begin to send so many bytes each.
  void begin(std::size_t from, std::size_t to, double bytes) {
    if (from == to) return;
    Way& way = ways[from][to];
    way.left += bytes;
    way.wanted += bytes;
    if (way.sending_since == kNever) way.sending_since = now();
  }
  void begin_all(double bytes) {
    for (std::size_t i = 0; i < kMembers; ++i) {
      for (std::size_t j = 0; j < kMembers; ++j) begin(i, j, bytes);
    }
  }

  // Seconds until all have been acknowledged, and between the first and the last link.
  struct Took {
    double all_s = 0;
    double apart_s = 0;
  };
  Took finish() {
    const double begun_s = now_s_;
    double first_s = 0;
    std::size_t over = 0;
    while (over < kMembers * kMembers && now_s_ < begun_s + 100) {
      step();
      over = 0;
      for (const auto& row : ways) over += std::count_if(row.begin(), row.end(), [](const Way& way) { return way.over(); });
      if (over > kMembers && first_s == 0) first_s = now_s_;  // nobody sends to himself
    }
    return {now_s_ - begun_s, now_s_ - first_s};
  }
  Took exchange(double bytes) {
    begin_all(bytes);
    return finish();
  }

  [[nodiscard]] Nanos now() const { return static_cast<Nanos>(now_s_ * 1e9); }

  std::array<Line, kMembers> up;
  std::array<Line, kMembers> down;
  std::array<std::array<Way, kMembers>, kMembers> ways;
  std::array<LinePacer, kMembers> paces;
  double resent = 0;

 private:
  void enter(Line& line, std::size_t of, double bytes, Way& way) {
    const double lost = line.put(of, bytes);
    way.left += lost;
    way.resent += lost;
    resent += lost;
  }

  void step() {
    std::uniform_real_distribution<> noise(0, kNoiseS);
    // Where there is little room, each in turn is the first.
    for (std::size_t turn = 0; turn < kMembers; ++turn) {
      const std::size_t i = (steps_ + turn) % kMembers;
      for (std::size_t j = 0; j < kMembers; ++j) {
        Way& way = ways[i][(steps_ + j) % kMembers];
        const double bytes = std::min(way.left, way.pacer.bytes_per_s() * kStepS);
        way.left -= bytes;
        way.sent += bytes;
        enter(up[i], (steps_ + j) % kMembers, bytes, way);
        if (way.left <= 0) way.sending_since = kNever;
      }
      const ByMember leaves = up[i].serve();
      for (std::size_t j = 0; j < kMembers; ++j) {
        Way& way = ways[i][j];
        way.there.push_back(leaves[j]);
        enter(down[j], i, way.there.front(), way);
        way.there.pop_front();
      }
    }
    for (std::size_t j = 0; j < kMembers; ++j) {
      const ByMember comes = down[j].serve();
      for (std::size_t i = 0; i < kMembers; ++i) {
        Way& way = ways[i][j];
        way.back.push_back(comes[i]);
        way.acked += way.back.front();
        way.back.pop_front();
        const double queues_s = up[i].seconds() + down[j].seconds() + noise(random_);
        way.round_trip_s += 0.05 * (kRoundTripS + queues_s - way.round_trip_s);
      }
    }
    now_s_ += kStepS;
    if (++steps_ % static_cast<std::size_t>(kPaceEvery / kMillisecond) == 0) follow();
  }

  void follow() {
    for (std::size_t i = 0; i < kMembers; ++i) {
      std::vector<Pacer*> pacers;
      for (std::size_t j = 0; j < kMembers; ++j) {
        if (i == j) continue;
        ways[i][j].pacer.observe(ways[i][j].counts(), ways[i][j].sending_since, now());
        pacers.push_back(&ways[i][j].pacer);
      }
      paces[i].follow(pacers, now());
    }
  }

  std::mt19937 random_{1};
  double now_s_ = 1;
  std::size_t steps_ = 0;
};

constexpr double kBytes = 4 * kPart;
constexpr double kLeastS = 4 + kRoundTripS;  // of an exchange of so many

TEST(LinePacer, LinesAreFullAndAllLinksAreDoneAtTheSameTime) {
  for (const double figure : {0.5, 0.86, 1.0, 1.3}) {
    Lines lines;
    lines.expect(figure * kPart);
    const Lines::Took first = lines.exchange(kBytes);
    EXPECT_LT(first.all_s, 1.1 * kLeastS) << figure;
    for (int op = 0; op < 4; ++op) {
      const Lines::Took took = lines.exchange(kBytes);
      EXPECT_LT(took.all_s, 1.03 * kLeastS) << figure;
      EXPECT_LT(took.apart_s, 0.03 * kLeastS) << figure;
    }
    EXPECT_EQ(lines.resent, 0) << figure;
  }
}

TEST(LinePacer, FollowsALineThatHasBecomeSlower) {
  Lines lines;
  lines.expect(kPart);
  lines.exchange(kBytes);
  lines.up[3].bytes_per_s = lines.down[3].bytes_per_s = 0.6 * kLine;
  const Lines::Took took = lines.exchange(2 * kBytes);
  EXPECT_LT(took.all_s, 1.05 * (8 / 0.6 + kRoundTripS)) << "the slow line is full";
  EXPECT_LT(lines.resent, 0.02 * 6 * 2 * kBytes) << "and little is thrown away";
  EXPECT_LT(lines.ways[0][3].pacer.bytes_per_s(), 0.75 * kPart);
  lines.up[3].bytes_per_s = lines.down[3].bytes_per_s = kLine;
  lines.exchange(kBytes);
  EXPECT_LT(lines.exchange(kBytes).all_s, 1.03 * kLeastS) << "and back";
}

TEST(LinePacer, ALinkThatIsBusyAloneFindsTheWholeLineAndGivesItBack) {
  Lines lines;
  lines.expect(kPart);
  lines.exchange(kBytes);
  lines.begin(0, 1, kBytes);
  EXPECT_LT(lines.finish().all_s, 2.3) << "4 s at its part of the line, 1.4 s of all";
  lines.begin(0, 1, kBytes);
  EXPECT_LT(lines.finish().all_s, 1.8) << "found again at once";
  const double lost = lines.resent;
  EXPECT_LT(lines.exchange(kBytes).all_s, 1.03 * kLeastS);
  EXPECT_EQ(lines.resent, lost) << "no link goes on as if it were alone";
}

TEST(LinePacer, OtherFiguresBeginAnew) {
  Lines lines;
  lines.expect(0.5 * kPart);
  lines.exchange(kBytes);
  EXPECT_GT(lines.paces[0].times(), 1.8);
  lines.expect(kPart);
  EXPECT_EQ(lines.paces[0].times(), 1);
  EXPECT_EQ(lines.ways[0][1].pacer.bytes_per_s(), kPart);
}

}  // namespace
}  // namespace reef
