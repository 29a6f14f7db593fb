#include "atoll/net/pacer.h"

#include <algorithm>
#include <limits>
#include <utility>

namespace reef {

namespace {

// So slow a line is left to TCP: a chunk of it takes as long as an interval, and nothing would be learned.
constexpr double kLeastPace = 250e3;
// A figure within these of the last one says nothing new.
constexpr double kAlike = 0.7;
// What was learned stays within these of what was measured: from here on TCP's own congestion control finds
// the pace, or the line is no bottleneck.
constexpr double kLeastOfExpected = 0.25;
constexpr double kMostOfExpected = 16;
// In one interval. Up to what went well before it goes up fast.
constexpr double kSearch = 1.15;
constexpr double kRaise = 1.02;
constexpr double kRegain = 1.05;
constexpr double kLower = 0.96;
constexpr double kLowerMost = 0.9;
constexpr double kLeastOfSearch = 0.7;
// Of the pace; whoever sends less has not tried it.
constexpr double kTried = 0.85;
// Of packets. Lines that lose so many by themselves are rare; a queue that overflows loses more.
constexpr double kOverflow = 0.02;
// Of an interval, in the mean of what arrives.
constexpr double kLately = 0.2;
// Time in queues, in round trips of the empty path and at least: no faster; slower.
constexpr double kSomeQueue = 0.25;
constexpr double kMuchQueue = 0.5;
constexpr double kLeastQueueS = 0.02;

// Links that are busy together are those of the line when they are so much of it.
constexpr double kTogether = 0.9;
// The queue that keeps a line full: in round trips of the empty path, and at least. (The kernel's figure is
// some milliseconds long without any.) Shorter than this part of it there is none.
constexpr double kWantedQueue = 0.18;
constexpr double kLeastWantedS = 0.015;
constexpr double kEmpty = 0.6;
// A queue that is so much too long is to be gone in half of that; and by how much the pace may differ for it.
constexpr double kSettleS = 0.5;
constexpr double kMostLess = 0.15;
constexpr double kMostMore = 0.03;

double wanted_queue_s(double least_round_trip_s) {
  return std::max(kLeastWantedS, kWantedQueue * least_round_trip_s);
}

// The pace, as a multiple of what arrives, that makes a queue as long as it is wanted.
double correction(double wanted_s, double queue_s) {
  return 1 + std::clamp((wanted_s - queue_s) / kSettleS, -kMostLess, kMostMore);
}

// What may go at once after a pause, and when nothing may go any more.
constexpr double kBurstS = 0.02;
constexpr double kPieceS = 0.004;

}  // namespace

bool Pacer::expect(double bytes_per_s) {
  if (bytes_per_s > 0) bytes_per_s = std::max(bytes_per_s, kLeastPace);
  const double less = std::min(expected_, bytes_per_s);
  const bool news = !(less > kAlike * std::max(expected_, bytes_per_s));
  expected_ = bytes_per_s;
  if (!news) return false;
  rate_ = bytes_per_s;
  share_ = 1;
  good_ = 0;
  delivered_ = 0;
  alone_ = false;
  searching_ = true;
  sample_.reset();
  lowered_at_ = kNever;
  return true;
}

void Pacer::observe(const PathCounts& counts, Nanos sending_since, Nanos now) {
  const PathCounts before = std::exchange(seen_, counts);
  const Nanos since = std::exchange(seen_at_, now);
  sample_.reset();
  // A connection that was replaced counts from nothing.
  const bool comparable = counts.sent_bytes > before.sent_bytes &&
                          counts.acked_bytes >= before.acked_bytes &&
                          counts.resent_bytes >= before.resent_bytes;
  if (rate_ == 0 || !comparable || since == kNever || now <= since) return;
  // What was acknowledged in the interval was sent a round trip before.
  const auto earlier = static_cast<Nanos>(1e9 * counts.round_trip_s);
  if (sending_since == kNever || sending_since > since - earlier) return;
  PaceSample sample;
  sample.delivered_bytes_per_s = static_cast<double>(counts.acked_bytes - before.acked_bytes) * 1e9 /
                                 static_cast<double>(now - since);
  sample.lost = static_cast<double>(counts.resent_bytes - before.resent_bytes) /
                static_cast<double>(counts.sent_bytes - before.sent_bytes);
  sample.least_round_trip_s = counts.least_round_trip_s;
  sample.queue_s = counts.round_trip_s - counts.least_round_trip_s;
  const double delivered = sample.delivered_bytes_per_s;
  delivered_ = delivered_ == 0 ? delivered : delivered_ + kLately * (delivered - delivered_);
  sample_ = sample;
}

void Pacer::go_at(double bytes_per_s) {
  rate_ = std::clamp(bytes_per_s, kLeastOfExpected * expected_, kMostOfExpected * expected_);
}

void Pacer::follow_alone(Nanos now) {
  if (!sample_) return;
  if (!std::exchange(alone_, true) && good_ > rate_) go_at(good_);
  const PaceSample& sample = *sample_;
  const double some_s = std::max(kLeastQueueS, kSomeQueue * sample.least_round_trip_s);
  const double much_s = std::max(2 * kLeastQueueS, kMuchQueue * sample.least_round_trip_s);
  if (sample.lost > kOverflow || sample.queue_s > much_s) {
    const double least = std::exchange(searching_, false) ? kLeastOfSearch : kLowerMost;
    // What was sent before the last change is still on its way.
    const auto settled = static_cast<Nanos>(2e9 * (sample.least_round_trip_s + sample.queue_s));
    if (lowered_at_ != kNever && now - lowered_at_ < settled) return;
    lowered_at_ = now;
    const double arrives = std::clamp(sample.delivered_bytes_per_s, least * rate_, rate_);
    good_ = std::max(kLowerMost * good_, kLower * arrives);
    go_at(kLower * arrives);
  } else if (sample.queue_s < some_s && sample.delivered_bytes_per_s > kTried * rate_) {
    go_at((searching_ || kSearch * rate_ < good_ ? kSearch : kRaise) * rate_);
  }
}

void Pacer::follow_line(double times, double queue_s) {
  alone_ = false;
  if (!sample_) return;
  const double part = times * expected_;
  // Whoever has less of the far line may have more of the queue before it: so all come to equal shares.
  const double wanted_s = wanted_queue_s(sample_->least_round_trip_s) / share_;
  const bool full = queue_s > kEmpty * wanted_s && share_ < 1;
  if (full || queue_s > wanted_s || sample_->lost > kOverflow) {
    const double arrives = std::clamp(sample_->delivered_bytes_per_s / part, kLeastOfExpected, 1.0);
    share_ += kLately * (arrives - share_);
  } else {
    share_ = std::min(1.0, kRegain * share_);
  }
  go_at(std::min(1.0, share_ * correction(wanted_s, queue_s)) * part);
}

void Pacer::rest(double times) {
  alone_ = false;
  go_at(share_ * times * expected_);
}

void LinePacer::reset() { *this = LinePacer{}; }

void LinePacer::follow(std::span<Pacer* const> links, Nanos now) {
  double expected = 0;
  double busy = 0;
  PaceSample together;
  together.queue_s = std::numeric_limits<double>::infinity();
  for (const Pacer* link : links) {
    expected += link->expected_bytes_per_s();
    if (!link->sample()) continue;
    const PaceSample& one = *link->sample();
    busy += link->expected_bytes_per_s();
    together.delivered_bytes_per_s += one.delivered_bytes_per_s;
    together.lost += one.lost * link->expected_bytes_per_s();
    together.queue_s = std::min(together.queue_s, one.queue_s);
    together.least_round_trip_s = std::max(together.least_round_trip_s, one.least_round_trip_s);
  }
  if (busy > 0 && busy > kTogether * expected) {
    together.lost /= busy;
    follow_all(together, busy);
    for (Pacer* link : links) {
      if (link->sample()) {
        link->follow_line(times_, link->sample()->queue_s - together.queue_s);
      } else {
        link->rest(times_);
      }
    }
    return;
  }
  for (Pacer* link : links) {
    if (link->sample()) {
      link->follow_alone(now);
    } else {
      link->rest(times_);
    }
  }
}

void LinePacer::follow_all(const PaceSample& together, double expected_bytes_per_s) {
  const double wanted_s = wanted_queue_s(together.least_round_trip_s);
  const double arrives = together.delivered_bytes_per_s / expected_bytes_per_s;
  const bool full = together.lost > kOverflow || together.queue_s > wanted_s;
  if (full) {
    const double lately = std::exchange(searching_, false) ? 1.0 : kLately;
    arrives_ += lately * (std::min(arrives, kSearch * arrives_) - arrives_);
  } else if (together.queue_s < kEmpty * wanted_s && arrives > kTried * times_) {
    arrives_ *= searching_ ? kSearch : kRaise;
  }
  arrives_ = std::clamp(arrives_, kLeastOfExpected, kMostOfExpected);
  const double queue_s = together.lost > kOverflow ? std::max(together.queue_s, 2 * wanted_s + kMostLess * kSettleS) : together.queue_s;
  times_ = std::clamp(correction(wanted_s, queue_s) * arrives_, kLeastOfExpected, kMostOfExpected);
}

bool Budget::open(double bytes_per_s, Nanos now) {
  const double most = bytes_per_s * kBurstS;
  const double seconds = counted_at_ == kNever ? kBurstS : static_cast<double>(now - counted_at_) * 1e-9;
  left_bytes_ = std::min(most, left_bytes_ + bytes_per_s * seconds);
  counted_at_ = now;
  return left_bytes_ > 0;
}

Nanos Budget::opens_at(double bytes_per_s) const {
  const double seconds = kPieceS - left_bytes_ / bytes_per_s;
  return counted_at_ + static_cast<Nanos>(seconds * 1e9);
}

}  // namespace reef
