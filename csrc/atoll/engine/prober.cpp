#include "atoll/engine/prober.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "atoll/base/endian.h"

namespace reef {

namespace {

// What may be under way before anything has arrived: a quarter of a second of a line of 1 Mbit/s.
constexpr std::uint64_t kFirstWindow = 32u << 10;
// And then so much more for each byte that has arrived: the window grows fourfold with each round
// trip, and what is in a slow line's queue at the end is at most three times the burst.
constexpr std::uint64_t kGrowth = 3;
// A burst lasts for so many round trips at least, unless that takes too long: 32 KiB * 4^4 = 8 MiB in
// the fifth of them. Over a long path there are many connections; their windows begin to open when each
// has more to send than it may, in the third, and double with each.
constexpr Nanos kRoundTrips = 5;
constexpr Nanos kRoundTripsOfLong = 8;
constexpr Nanos kLongRoundTrip = 40 * kMillisecond;
constexpr Nanos kLongestBurst = kSecond;
constexpr std::size_t kSmallFrame = 8u << 10;

// Numbers that no compressor on the way makes shorter.
std::span<const std::byte> filler() {
  static const std::vector<std::byte> bytes = [] {
    std::vector<std::byte> made(limits::kMaxProbePayload);
    std::uint64_t state = 1;
    for (std::byte& one : made) {
      state = state * 6364136223846793005u + 1442695040888963407u;
      one = static_cast<std::byte>(state >> 56);
    }
    return made;
  }();
  return bytes;
}

Error broken(const char* what) {
  return Error{Code::protocol, 0, what};
}

}  // namespace

// ---- the asking side ----------------------------------------------------------------------------

Status Prober::start(const ProbeRequest& request, Nanos now) {
  if (probes_.contains(request.peer)) {
    return Error{Code::invalid, 0,
                 "a probe of the link to " + request.peer.shorthand() + " is under way"};
  }
  Probe& probe = probes_[request.peer];
  probe.request = request;
  probe.request.pings = std::max(1u, request.pings);
  probe.request.max_bytes = std::clamp<std::uint64_t>(request.max_bytes, 1, limits::kMaxProbeBytes);
  probe.request.duration = std::clamp<Nanos>(request.duration, 1, limits::kMaxProbeDuration);
  ping(probe, now);
  return Unit{};
}

bool Prober::owns(OpId op) const {
  return std::any_of(probes_.begin(), probes_.end(),
                     [op](const auto& entry) { return entry.second.request.op == op; });
}

void Prober::abort(OpId op) {
  for (auto at = probes_.begin(); at != probes_.end(); ++at) {
    if (at->second.request.op == op) {
      finish(at, Code::aborted, "the probe was aborted");
      return;
    }
  }
}

void Prober::close() {
  while (!probes_.empty()) finish(probes_.begin(), Code::closed, "the engine is closed");
}

void Prober::link_down(const PeerId& peer) {
  const auto at = probes_.find(peer);
  if (at != probes_.end()) {
    finish(at, Code::peer_lost, "the link to peer " + peer.shorthand() + " is down");
  }
}

void Prober::finish(Probes::iterator at, Code code, std::string message, double bytes_per_s) {
  const Probe& probe = at->second;
  ProbeEnd end;
  end.op = probe.request.op;
  end.peer = probe.request.peer;
  end.code = code;
  end.message = std::move(message);
  end.bytes_per_s = bytes_per_s;
  end.round_trip = probe.round_trip == kNever ? 0 : probe.round_trip;
  actions_.emplace_back(std::move(end));
  probes_.erase(at);
}

void Prober::send(const Probe& probe, ProbePhase phase, std::size_t bytes) {
  ProbeSend send;
  send.to = probe.request.peer;
  send.header.type = FrameType::probe;
  send.header.phase = static_cast<std::uint16_t>(phase);
  send.header.length = static_cast<std::uint32_t>(bytes);
  send.header.sequence = probe.request.op;
  send.header.offset = phase == ProbePhase::ping ? probe.pinged : probe.sent;
  send.filler = phase != ProbePhase::ping;
  send.payload = filler().first(bytes);
  actions_.emplace_back(std::move(send));
}

void Prober::ping(Probe& probe, Nanos now) {
  ++probe.pinged;
  probe.asked = now;
  send(probe, ProbePhase::ping, 0);
}

// Long enough for the window to open; a short burst on a long path measures its beginning.
Nanos Prober::burst(const Probe& probe) {
  const Nanos trips = probe.round_trip >= kLongRoundTrip ? kRoundTripsOfLong : kRoundTrips;
  const Nanos opened = std::min(probe.round_trip, kLongestBurst / trips) * trips;
  return std::max(probe.request.duration, opened);
}

// As much filler as the window allows; the last frame, when time or bytes are used up.
void Prober::fill(Probe& probe, Nanos now) {
  if (probe.last_sent) return;
  const bool over = now - probe.burst_began >= burst(probe);
  while (!over && probe.sent < probe.request.max_bytes) {
    const std::uint64_t most = kFirstWindow + kGrowth * probe.arrived;
    const std::uint64_t under_way = probe.sent - probe.arrived;
    const std::size_t frame =
        most > 16 * limits::kMaxProbePayload ? limits::kMaxProbePayload : kSmallFrame;
    const std::uint64_t bytes =
        std::min<std::uint64_t>(frame, probe.request.max_bytes - probe.sent);
    if (under_way + bytes > most) return;
    probe.sent += bytes;
    send(probe, ProbePhase::filler, static_cast<std::size_t>(bytes));
  }
  probe.last_sent = true;
  send(probe, ProbePhase::last, 0);
}

Status Prober::deliver(const PeerId& from, const FrameHeader& header,
                       std::span<const std::byte> payload, Nanos now) {
  const auto at = probes_.find(from);
  if (at == probes_.end() || at->second.request.op != header.sequence) return Unit{};  // late
  Probe& probe = at->second;
  const auto bytes = load_le<std::uint64_t>(payload.data());
  const auto nanos = load_le<std::uint64_t>(payload.data() + 8);
  switch (static_cast<ProbePhase>(header.phase)) {
    case ProbePhase::ping:
      if (header.offset != probe.pinged || probe.burst_began != kNever) return Unit{};
      probe.round_trip = std::min(probe.round_trip, std::max<Nanos>(1, now - probe.asked));
      if (probe.pinged < probe.request.pings) {
        ping(probe, now);
      } else {
        probe.burst_began = now;
        fill(probe, now);
      }
      return Unit{};
    case ProbePhase::filler:
      if (bytes > probe.sent) return broken("a peer says that more filler came than was sent");
      probe.arrived = std::max(probe.arrived, bytes);
      fill(probe, now);
      return Unit{};
    case ProbePhase::last:
      if (!probe.last_sent || nanos > static_cast<std::uint64_t>(kNever) ||
          bytes > limits::kMaxVectorBytes) {
        return broken("a peer says an impossible end of a probe");
      }
      if (nanos == 0 || bytes == 0) {
        // Too few frames to see a pace: all of it, in the time of which one round trip is the way.
        const Nanos took = std::max<Nanos>(1, now - probe.burst_began - probe.round_trip);
        finish(at, Code::ok, "", static_cast<double>(probe.sent) * 1e9 / static_cast<double>(took));
      } else {
        finish(at, Code::ok, "", static_cast<double>(bytes) * 1e9 / static_cast<double>(nanos));
      }
      return Unit{};
  }
  return broken("a reply to a probe has an unknown phase");
}

Nanos Prober::tick(Nanos now) {
  Nanos next = kNever;
  for (auto at = probes_.begin(); at != probes_.end();) {
    Probe& probe = at->second;
    if (now >= probe.request.deadline) {
      finish(at++, Code::deadline, "peer did not answer the probe in time");
      continue;
    }
    next = std::min(next, probe.request.deadline);
    if (probe.burst_began != kNever && !probe.last_sent) {
      fill(probe, now);
      if (!probe.last_sent) next = std::min(next, probe.burst_began + burst(probe));
    }
    ++at;
  }
  return next;
}

bool Prober::next(ProbeAction& action) {
  if (actions_.empty()) return false;
  action = std::move(actions_.front());
  actions_.pop_front();
  return true;
}

// ---- the answering side -------------------------------------------------------------------------

bool ProbeAnswers::may_ask(Peer& peer, Nanos now) {
  if (peer.asked == 0 || now - peer.window_began >= kSecond) {
    peer.window_began = now;
    peer.asked = 0;
  }
  return ++peer.asked <= limits::kMaxProbesPerSecond;
}

// Keeps at most as many marks as there is room for, evenly spread: when it is full, every other one
// goes and half as many are made from then on.
void ProbeAnswers::mark(Peer& peer, Mark mark) {
  if (peer.frames++ % peer.every != 0) return;
  if (peer.marked == peer.marks.size()) {
    for (std::size_t i = 0; i < peer.marks.size() / 2; ++i) peer.marks[i] = peer.marks[2 * i];
    peer.marked = peer.marks.size() / 2;
    peer.every *= 2;
  }
  peer.marks[peer.marked++] = mark;
}

// The half of the frames that came fastest, one after the other: neither the beginning, when TCP looks
// for its pace, nor the end, when a lost packet is waited for, is what the path carries. Nothing when
// there are too few.
ProbeAnswers::Stretch ProbeAnswers::best_half(const Peer& peer, Mark last) {
  Stretch best;
  if (peer.marked < 4) return best;
  const std::size_t half = peer.marked / 2;
  for (std::size_t i = 0; i + half <= peer.marked; ++i) {
    const Mark& begin = peer.marks[i];
    const Mark& end = i + half == peer.marked ? last : peer.marks[i + half];
    const Stretch stretch{end.link_bytes - begin.link_bytes, end.at - begin.at};
    const bool faster = static_cast<double>(stretch.bytes) * static_cast<double>(best.nanos) >
                        static_cast<double>(best.bytes) * static_cast<double>(stretch.nanos);
    if (stretch.nanos > 0 && (best.nanos == 0 || faster)) best = stretch;
  }
  return best;
}

void ProbeAnswers::reply(const PeerId& to, const FrameHeader& header, ProbePhase phase,
                         std::uint64_t bytes, Nanos nanos) {
  ProbeSend send;
  send.to = to;
  send.header.type = FrameType::probe_reply;
  send.header.phase = static_cast<std::uint16_t>(phase);
  send.header.length = kProbeReplyBytes;
  send.header.sequence = header.sequence;
  send.header.offset = header.offset;
  store_le(send.reply.data(), bytes);
  store_le(send.reply.data() + 8, static_cast<std::uint64_t>(nanos));
  actions_.emplace_back(std::move(send));
}

Status ProbeAnswers::deliver(const PeerId& from, const FrameHeader& header,
                             std::uint64_t link_bytes, Nanos now) {
  if (header.phase > static_cast<std::uint16_t>(ProbePhase::last) || header.sequence == 0) {
    return broken("a probe has an unknown phase or no number");
  }
  const auto phase = static_cast<ProbePhase>(header.phase);
  if ((header.length == 0) != (phase != ProbePhase::filler)) {
    return broken("a probe's payload does not fit its phase");
  }
  Peer& peer = peers_[from];
  if (phase == ProbePhase::ping) {
    if (may_ask(peer, now)) reply(from, header, phase, 0, 0);
    return Unit{};
  }
  if (peer.probe != header.sequence) {
    if (!may_ask(peer, now)) return Unit{};
    const Nanos began = peer.window_began;
    const std::uint32_t asked = peer.asked;
    peer = Peer{};
    peer.window_began = began;
    peer.asked = asked;
    peer.probe = header.sequence;
  }
  if (phase == ProbePhase::filler) {
    if (header.length > limits::kMaxProbeBytes - peer.received) {
      return broken("a probe has more filler than one may have");
    }
    peer.received += header.length;
    mark(peer, Mark{now, link_bytes});
    // Not for every small frame: whoever asks must not be able to make this side say as much.
    if (peer.received - peer.told >= kSmallFrame) {
      peer.told = peer.received;
      reply(from, header, phase, peer.received, 0);
    }
  } else {
    if (header.offset > limits::kMaxProbeBytes) {
      return broken("a probe has more filler than one may have");
    }
    peer.total = header.offset;
  }
  // The last frame may have overtaken some filler on another connection.
  if (peer.total && peer.received >= *peer.total) {
    const Stretch best = best_half(peer, Mark{now, link_bytes});
    reply(from, header, ProbePhase::last, best.bytes, best.nanos);
    peer.probe = 0;
  }
  return Unit{};
}

bool ProbeAnswers::next(ProbeAction& action) {
  if (actions_.empty()) return false;
  action = std::move(actions_.front());
  actions_.pop_front();
  return true;
}

}  // namespace reef
