// The probe's two machines, joined by a modelled link of a known rate and round trip.
#include "atoll/engine/prober.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <optional>
#include <queue>
#include <random>
#include <string>
#include <vector>

#include "atoll/base/endian.h"

namespace reef {
namespace {

PeerId id_of(unsigned number) {
  PeerId id;
  id.bytes[0] = static_cast<std::uint8_t>(number);
  return id;
}

struct Line {
  double bytes_per_s = 1e8;
  Nanos latency = 10 * kMillisecond;
  Nanos jitter = 0;  // of single frames, so that they overtake one another
};

// `asker` probes `answerer`; time jumps from event to event.
class Sea {
 public:
  explicit Sea(const Line& line) : line_(line) {}

  ProbeEnd probe(ProbeRequest request) {
    request.peer = answerer_id;
    EXPECT_TRUE(asker.start(request, now).ok());
    while (!ended_) {
      drain();
      if (ended_) break;
      const Nanos due = asker.tick(now);
      drain();
      if (ended_) break;
      if (arrivals_.empty() || due < arrivals_.begin()->first) {
        if (due == kNever) {
          ADD_FAILURE() << "the probe hangs";
          break;
        }
        now = std::max(now, due);
        continue;
      }
      const auto [at, action] = *arrivals_.begin();
      arrivals_.erase(arrivals_.begin());
      now = std::max(now, at);
      arrive(action);
    }
    ProbeEnd end = ended_.value_or(ProbeEnd{});
    ended_.reset();
    return end;
  }

  PeerId asker_id = id_of(1);
  PeerId answerer_id = id_of(2);
  Prober asker;
  ProbeAnswers answers;
  Nanos now = 1'000 * kSecond;
  bool deaf = false;
  double other_bytes_per_s = 0;  // of the link, taken by data
  std::uint64_t filler = 0;
  std::uint64_t most_under_way = 0;
  Nanos burst_over = 0;  // when the last filler arrived

 private:
  void drain() {
    ProbeAction action;
    while (asker.next(action) || answers.next(action)) {
      if (auto* end = std::get_if<ProbeEnd>(&action)) {
        ended_ = *end;
        continue;
      }
      const ProbeSend& send = std::get<ProbeSend>(action);
      const double rate = line_.bytes_per_s - other_bytes_per_s;
      const auto size = static_cast<double>(kHeaderBytes + send.header.length);
      Nanos& free = send.to == answerer_id ? free_there_ : free_back_;
      free = std::max(free, now) + static_cast<Nanos>(size / rate * 1e9);
      const Nanos shake =
          line_.jitter == 0
              ? 0
              : static_cast<Nanos>(random_() % static_cast<std::uint64_t>(line_.jitter));
      if (send.filler) {
        filler += send.header.length;
        under_way_ += send.header.length;
        most_under_way = std::max(most_under_way, under_way_);
      }
      arrivals_.emplace(free + line_.latency + shake, send);
    }
  }
  void arrive(const ProbeSend& send) {
    if (send.to == asker_id) {
      EXPECT_TRUE(asker.deliver(answerer_id, send.header, send.reply, now).ok());
      return;
    }
    if (send.filler) {
      under_way_ -= send.header.length;
      burst_over = now;
    }
    received_ += kHeaderBytes + send.header.length;
    if (deaf) return;
    const auto others =
        static_cast<std::uint64_t>(other_bytes_per_s * static_cast<double>(now) / 1e9);
    EXPECT_TRUE(answers.deliver(asker_id, send.header, received_ + others, now).ok());
  }

  Line line_;
  std::mt19937_64 random_{3};
  std::multimap<Nanos, ProbeSend> arrivals_;
  Nanos free_there_ = 0;
  Nanos free_back_ = 0;
  std::uint64_t received_ = 0;
  std::uint64_t under_way_ = 0;
  std::optional<ProbeEnd> ended_;
};

ProbeRequest request_of(OpId op, Nanos duration = 100 * kMillisecond) {
  ProbeRequest request;
  request.op = op;
  request.duration = duration;
  request.deadline = 1'000 * kSecond + 20 * kSecond;
  return request;
}

TEST(Prober, MeasuresWhatTheLineIs) {
  for (const double rate : {1e5, 1e6, 1e7, 1e8, 1e9}) {
    for (const Nanos latency : {50 * kMicrosecond, 5 * kMillisecond, 50 * kMillisecond}) {
      Sea sea(Line{rate, latency});
      const ProbeEnd end = sea.probe(request_of(7));
      EXPECT_EQ(end.code, Code::ok);
      EXPECT_EQ(end.op, 7u);
      // The way there and back, and the headers' own time.
      EXPECT_GE(end.round_trip, 2 * latency);
      EXPECT_LE(end.round_trip, 2 * latency + static_cast<Nanos>(2.5e9 * 48 / rate) + 1'000);
      // A burst opens the window to 8 MiB a round trip, no further.
      const double seen = std::min(rate, 6.0 * 1024 * 1024 / (2e-9 * static_cast<double>(latency)));
      EXPECT_GT(end.bytes_per_s, 0.75 * seen) << rate << " bytes/s, " << latency << " ns";
      EXPECT_LT(end.bytes_per_s, 1.05 * rate) << rate << " bytes/s, " << latency << " ns";
    }
  }
}

// More than half a second of filler must never be in the way of anything.
TEST(Prober, IsNeverFarAheadOfASlowLine) {
  for (const double rate : {1.25e5, 1e6, 1e7}) {
    Sea sea(Line{rate, 10 * kMillisecond});
    const Nanos began = sea.now;
    sea.probe(request_of(1));
    EXPECT_LE(static_cast<double>(sea.most_under_way) / rate, 0.6) << rate;
    EXPECT_LE(sea.burst_over - began, kSecond) << rate;
  }
}

TEST(Prober, StopsAtItsBytes) {
  Sea sea(Line{1e9, kMillisecond});
  ProbeRequest request = request_of(1);
  request.max_bytes = 300'000;
  EXPECT_EQ(sea.probe(request).code, Code::ok);
  EXPECT_EQ(sea.filler, 300'000u);
  request.op = 2;
  request.max_bytes = UINT64_MAX;
  request.duration = kNever;
  sea.filler = 0;
  EXPECT_EQ(sea.probe(request).code, Code::ok);
  EXPECT_LE(sea.filler, limits::kMaxProbeBytes);
}

TEST(Prober, CountsWhatElseTheLinkCarries) {
  Sea sea(Line{1e7, kMillisecond});
  sea.other_bytes_per_s = 6e6;
  EXPECT_NEAR(sea.probe(request_of(1)).bytes_per_s, 1e7, 1.5e6);
}

TEST(Prober, FramesMayOvertakeOneAnother) {
  Sea sea(Line{1e8, 5 * kMillisecond, 8 * kMillisecond});
  const ProbeEnd end = sea.probe(request_of(1));
  EXPECT_EQ(end.code, Code::ok);
  EXPECT_GT(end.bytes_per_s, 0.6e8);
  EXPECT_LT(end.bytes_per_s, 1.4e8);
}

TEST(Prober, WhoDoesNotAnswerIsNotWaitedFor) {
  Sea sea(Line{});
  sea.deaf = true;
  const Nanos began = sea.now;
  const ProbeEnd end = sea.probe(request_of(1));
  EXPECT_EQ(end.code, Code::deadline);
  EXPECT_EQ(sea.now - began, 20 * kSecond);
}

TEST(Prober, EndsOnceWhateverEndsIt) {
  const auto ended = [](Prober& prober) {
    std::vector<Code> codes;
    ProbeAction action;
    while (prober.next(action)) {
      if (auto* end = std::get_if<ProbeEnd>(&action)) codes.push_back(end->code);
    }
    return codes;
  };
  ProbeRequest request = request_of(1);
  request.peer = id_of(2);
  Prober prober;
  ASSERT_TRUE(prober.start(request, 0).ok());
  const Status second = prober.start(request, 0);
  ASSERT_FALSE(second.ok());
  EXPECT_EQ(second.error().code, Code::invalid);
  EXPECT_TRUE(prober.owns(1));
  EXPECT_FALSE(prober.owns(2));
  prober.link_down(id_of(3));
  EXPECT_TRUE(prober.owns(1));
  prober.link_down(id_of(2));
  EXPECT_EQ(ended(prober), std::vector{Code::peer_lost});
  prober.link_down(id_of(2));
  prober.abort(1);
  prober.close();
  EXPECT_TRUE(ended(prober).empty());
  ASSERT_TRUE(prober.start(request, 0).ok());
  prober.abort(1);
  EXPECT_EQ(ended(prober), std::vector{Code::aborted});
  ASSERT_TRUE(prober.start(request, 0).ok());
  prober.close();
  EXPECT_EQ(ended(prober), std::vector{Code::closed});
}

FrameHeader probe_header(ProbePhase phase, std::uint32_t length, std::uint64_t number = 5) {
  FrameHeader header;
  header.type = FrameType::probe;
  header.phase = static_cast<std::uint16_t>(phase);
  header.length = length;
  header.sequence = number;
  return header;
}

int replies(ProbeAnswers& answers) {
  int count = 0;
  ProbeAction action;
  while (answers.next(action)) ++count;
  return count;
}

TEST(ProbeAnswers, RefusesWhatBreaksTheProtocol) {
  const auto code = [](const FrameHeader& header) {
    ProbeAnswers answers;
    const Status status = answers.deliver(id_of(1), header, 0, 0);
    return status.ok() ? Code::ok : status.error().code;
  };
  EXPECT_EQ(code(probe_header(ProbePhase::ping, 0)), Code::ok);
  EXPECT_EQ(code(probe_header(ProbePhase::ping, 8)), Code::protocol);
  EXPECT_EQ(code(probe_header(ProbePhase::filler, 0)), Code::protocol);
  EXPECT_EQ(code(probe_header(ProbePhase::last, 8)), Code::protocol);
  EXPECT_EQ(code(probe_header(static_cast<ProbePhase>(3), 0)), Code::protocol);
  EXPECT_EQ(code(probe_header(ProbePhase::ping, 0, 0)), Code::protocol);
  FrameHeader far = probe_header(ProbePhase::last, 0);
  far.offset = limits::kMaxProbeBytes + 1;
  EXPECT_EQ(code(far), Code::protocol);
}

TEST(ProbeAnswers, NobodyCanAskForMuch) {
  ProbeAnswers answers;
  for (int i = 0; i < 10'000; ++i) {
    ASSERT_TRUE(answers.deliver(id_of(1), probe_header(ProbePhase::ping, 0), 0, kSecond).ok());
  }
  EXPECT_EQ(replies(answers), static_cast<int>(limits::kMaxProbesPerSecond));
  // Another may ask all the same, and the first one again a second later.
  ASSERT_TRUE(answers.deliver(id_of(2), probe_header(ProbePhase::ping, 0), 0, kSecond).ok());
  EXPECT_EQ(replies(answers), 1);
  ASSERT_TRUE(answers.deliver(id_of(1), probe_header(ProbePhase::ping, 0), 0, 2 * kSecond).ok());
  EXPECT_EQ(replies(answers), 1);
}

TEST(ProbeAnswers, OneBurstIsBounded) {
  ProbeAnswers answers;
  std::uint64_t sent = 0;
  const FrameHeader frame = probe_header(ProbePhase::filler, limits::kMaxProbePayload);
  while (answers.deliver(id_of(1), frame, sent, kSecond).ok()) {
    sent += frame.length;
    ASSERT_LE(sent, limits::kMaxProbeBytes);
  }
  EXPECT_EQ(sent, limits::kMaxProbeBytes);
  EXPECT_EQ(replies(answers), static_cast<int>(sent / frame.length));
  // Tiny frames get a reply for every 8 KiB, not each.
  for (int i = 0; i < 8 * 1024 * 4; ++i) {
    ASSERT_TRUE(answers.deliver(id_of(2), probe_header(ProbePhase::filler, 1), 0, kSecond).ok());
  }
  EXPECT_EQ(replies(answers), 4);
}

TEST(Prober, ImpossibleRepliesBreakTheProtocol) {
  const auto code = [](ProbePhase phase, std::uint64_t bytes, std::uint64_t nanos, OpId op = 1) {
    Prober prober;
    ProbeRequest request = request_of(1);
    request.peer = id_of(2);
    request.pings = 1;
    EXPECT_TRUE(prober.start(request, 0).ok());
    FrameHeader header;
    header.type = FrameType::probe_reply;
    header.length = kProbeReplyBytes;
    header.sequence = 1;
    header.offset = 1;
    std::vector<std::byte> payload(kProbeReplyBytes);
    EXPECT_TRUE(prober.deliver(id_of(2), header, payload, 1'000).ok());  // the ping's
    header.phase = static_cast<std::uint16_t>(phase);
    header.sequence = op;
    store_le(payload.data(), bytes);
    store_le(payload.data() + 8, nanos);
    const Status status = prober.deliver(id_of(2), header, payload, 2'000);
    return status.ok() ? Code::ok : status.error().code;
  };
  EXPECT_EQ(code(ProbePhase::filler, 8'192, 0), Code::ok);
  EXPECT_EQ(code(ProbePhase::filler, UINT64_MAX, 0), Code::protocol);
  EXPECT_EQ(code(ProbePhase::last, 10, 10), Code::protocol);  // the last frame was not sent
  EXPECT_EQ(code(static_cast<ProbePhase>(9), 0, 0), Code::protocol);
  EXPECT_EQ(code(static_cast<ProbePhase>(9), 0, 0, 99), Code::ok);  // late: of another probe
}

}  // namespace
}  // namespace reef
