#include "network.h"

#include <algorithm>

namespace wan {

namespace {

Nanos time_on_line(std::uint32_t bytes, double bits_per_s) {
  return static_cast<Nanos>(bytes * 8.0 * 1e9 / bits_per_s);
}

}  // namespace

Network::Network(Host hosts, std::uint64_t seed)
    : lines_(hosts),
      paths_(static_cast<std::size_t>(hosts) * hosts),
      tallies_(hosts),
      up_free_(hosts, 0),
      down_free_(hosts, 0),
      path_free_(paths_.size(), 0),
      path_last_(paths_.size(), 0),
      random_(seed) {}

// One segment through uplink and path; false when it is dropped. `at`: when it is at the downlink,
// but for the jitter.
bool Network::leaves(const Burst& burst, std::uint32_t segment, Nanos now, Nanos& at) {
  const Line& line = lines_[burst.from];
  const Path& path = paths_[index(burst.from, burst.to)];
  Tally& tally = tallies_[burst.from];
  const std::uint32_t bytes = burst.bytes_of(segment);
  Nanos& up_free = up_free_[burst.from];
  if (up_free - now > line.queue) {
    ++tally.dropped_full;
    return false;
  }
  up_free = std::max(up_free, now) + time_on_line(bytes, line.up_bits_per_s);
  tally.sent_bytes += bytes;
  at = up_free;
  if (path.bits_per_s > 0) {
    Nanos& path_free = path_free_[index(burst.from, burst.to)];
    if (path_free - at > line.queue) {
      ++tally.dropped_full;
      return false;
    }
    path_free = std::max(path_free, at) + time_on_line(bytes, path.bits_per_s);
    at = path_free;
  }
  if (path.loss > 0 && std::uniform_real_distribution<>(0, 1)(random_) < path.loss) {
    ++tally.dropped_lost;
    return false;
  }
  at += path.delay;
  return true;
}

void Network::send(const Burst& burst, Nanos now, std::vector<Piece>& pieces) {
  pieces.clear();
  const std::size_t way = index(burst.from, burst.to);
  const Path& path = paths_[way];
  if (path.cut || lines_[burst.from].isolated || lines_[burst.to].isolated) {
    tallies_[burst.from].dropped_cut += burst.segments;
    return;
  }
  bool open = false;
  for (std::uint32_t segment = 0; segment < burst.segments; ++segment) {
    Nanos at = 0;
    if (!leaves(burst, segment, now, at)) {
      open = false;
      continue;
    }
    if (!open) {
      pieces.push_back(Piece{segment, 0, at, at});
      open = true;
    }
    ++pieces.back().count;
    pieces.back().last_at = at;
  }
  for (Piece& piece : pieces) {
    if (path.jitter > 0) {
      const auto late = static_cast<Nanos>(std::uniform_real_distribution<>(
          0, static_cast<double>(path.jitter))(random_));
      piece.first_at += late;
      piece.last_at += late;
    }
    piece.first_at = std::max(piece.first_at, path_last_[way]);
    piece.last_at = std::max(piece.last_at, piece.first_at);
    path_last_[way] = piece.last_at;
  }
}

void Network::carry(const Burst& burst, const Piece& piece, std::uint64_t ticket) {
  Event event;
  event.at = piece.first_at;
  event.number = number_++;
  event.at_downlink = true;
  event.segments = burst;
  event.segments.segments = piece.count;
  event.segments.last_bytes = burst.bytes_of(piece.first + piece.count - 1);
  event.last_at = piece.last_at;
  event.ticket = ticket;
  events_.push(event);
}

// The piece's segments through the downlink, until one finds it full.
void Network::come_in(Event& event) {
  const Burst& segments = event.segments;
  const Line& line = lines_[segments.to];
  Nanos& free = down_free_[segments.to];
  const Nanos between =
      segments.segments > 1 ? (event.last_at - event.at) / (segments.segments - 1) : 0;
  Nanos arrives = event.at;
  event.count = 0;
  for (; event.count < segments.segments; ++event.count, arrives += between) {
    if (free - arrives > line.queue) {
      tallies_[segments.from].dropped_full += segments.segments - event.count;
      break;
    }
    const std::uint32_t bytes = segments.bytes_of(event.count);
    free = std::max(free, arrives) + time_on_line(bytes, line.down_bits_per_s);
    tallies_[segments.to].delivered_bytes += bytes;
  }
  event.at_downlink = false;
  if (event.count > 0) event.at = free;
}

Nanos Network::next_due() const {
  return events_.empty() ? kNever : events_.top().at;
}

bool Network::take(Nanos now, Delivery& delivery) {
  while (!events_.empty() && events_.top().at <= now) {
    Event event = events_.top();
    events_.pop();
    if (event.at_downlink) {
      come_in(event);
      if (event.count > 0) {
        event.number = number_++;
        events_.push(event);
        continue;
      }
    }
    delivery = Delivery{event.ticket, event.segments.to, event.count, event.at};
    return true;
  }
  return false;
}

}  // namespace wan
