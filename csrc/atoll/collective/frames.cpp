// The way of a frame: dropped as stale, kept for later, or given to the run of its op.

#include <string>

#include "atoll/collective/state.h"

namespace reef {

namespace {

Error violation(const PeerId& from, const FrameHeader& header, const char* what) {
  return Error{Code::protocol, 0,
               "peer " + from.shorthand() + " sent a frame of type " +
                   std::to_string(static_cast<int>(header.type)) + " for op " +
                   std::to_string(header.sequence) + " on channel " +
                   std::to_string(header.channel & ~kPairBits) + ": " + what};
}

bool is_op_frame(FrameType type) {
  return type == FrameType::start || type == FrameType::data || type == FrameType::done;
}

}  // namespace

std::span<std::byte> Core::State::place(const PeerId& from, const FrameHeader& header, OpId& op) {
  if (closed || frozen || !member || header.epoch != site.view.epoch) return {};
  const auto rank = ranks.find(from);
  if (rank == ranks.end() || rank->second == site.self || header.sender_rank != rank->second) {
    return {};
  }
  Run* run = nullptr;
  if ((header.channel & kExchangeBit) != 0) {
    const auto found = exchanges.find({header.channel, header.sequence, rank->second});
    if (found != exchanges.end()) run = &found->second.run;
  } else {
    const auto found = channels.find(header.channel);
    if (found != channels.end() && found->second.running &&
        found->second.committed == header.sequence) {
      run = &found->second.run;
    }
  }
  if (run == nullptr) return {};
  const std::span<std::byte> where = run->place(rank->second, header);
  if (!where.empty()) op = run->terms().op;
  return where;
}

bool Core::State::pull(const PeerId& to, Send& frame) {
  if (closed || frozen || !member) return false;
  const auto rank = ranks.find(to);
  if (rank == ranks.end()) return false;
  std::vector<Run*>& lane = site.lanes[rank->second];
  while (!lane.empty()) {
    if (lane.front()->pull(rank->second, frame)) {
      const CodecId codec = lane.front()->terms().description.codec;
      tally.payload_bytes[static_cast<std::size_t>(codec)] += frame.header.length;
      return true;
    }
    lane.erase(lane.begin());
  }
  return false;
}

Status Core::State::deliver(const PeerId& from, const FrameHeader& header,
                            std::span<const std::byte> payload) {
  if (closed) return Error{Code::closed, 0, "the core is closed"};
  if (!is_op_frame(header.type)) return violation(from, header, "it is none for an op");
  if (header.length != payload.size()) return violation(from, header, "its length is wrong");
  if (header.epoch == 0) return violation(from, header, "no op runs before the first view");
  if (header.epoch < site.view.epoch ||
      (header.epoch == site.view.epoch && (frozen || !member))) {
    ++tally.stale_frames;
    return Unit{};
  }
  if (header.epoch > site.view.epoch) {
    ++tally.early_frames;
    return early.keep(from, header, payload);
  }
  const auto rank = ranks.find(from);
  if (rank == ranks.end()) return violation(from, header, "it is no member of the view");
  if (rank->second == site.self || rank->second != header.sender_rank) {
    return violation(from, header, "the sender's rank is wrong");
  }
  return (header.channel & kExchangeBit) != 0
             ? deliver_exchange(from, rank->second, header, payload)
             : deliver_op(from, rank->second, header, payload);
}

Status Core::State::deliver_op(const PeerId& from, Rank rank, const FrameHeader& header,
                               std::span<const std::byte> payload) {
  const auto found = channels.find(header.channel);
  const Sequence committed = found == channels.end() ? 0 : found->second.committed;
  if (header.sequence < committed) return Unit{};  // a late notice; all has been said
  // Who starts op s has committed s-1, so this member has started s-1 at least.
  if (header.sequence > committed + 1) {
    return violation(from, header, "the op cannot have started yet");
  }
  if (found == channels.end() || !found->second.running || header.sequence != committed) {
    ++tally.early_frames;
    return early.keep(from, header, payload);
  }
  ChannelState& channel = found->second;
  switch (channel.run.take(rank, header, payload)) {
    case Verdict::wrong: return violation(from, header, "it does not fit the op");
    case Verdict::unclear:
      channel.run.kept_frames = true;
      ++tally.early_frames;
      return early.keep(from, header, payload);
    case Verdict::taken: break;
  }
  if (channel.run.kept_frames && channel.run.all_started()) {
    channel.run.kept_frames = false;
    take_early_of_all(channel.run);
  }
  advance(channel);
  return Unit{};
}

// Gives a run what one member sent before its time.
void Core::State::take_early(Run& run, Rank from) {
  const PeerId& peer = site.view.members[from];
  const Run::Terms& terms = run.terms();
  const EarlyFrames::Key key{site.view.epoch, terms.wire_channel, terms.sequence};
  for (const EarlyFrames::Frame& frame : early.take(peer, key)) {
    const Verdict verdict = frame.header.sender_rank == from
                                ? run.take(from, frame.header, frame.payload)
                                : Verdict::wrong;
    if (verdict == Verdict::wrong) {
      site.actions.emplace_back(Blame{
          peer, violation(peer, frame.header, "it came early, and does not fit the op")});
    } else if (verdict == Verdict::unclear) {
      run.kept_frames = true;
      Status kept = early.keep(peer, frame.header, frame.payload);
      if (!kept.ok()) site.actions.emplace_back(Blame{peer, kept.error()});
    }
  }
}

void Core::State::take_early_of_all(Run& run) {
  for (Rank rank = 0; rank < site.view.size(); ++rank) {
    if (rank != site.self) take_early(run, rank);
  }
  // The last START may have been among them.
  if (run.kept_frames && run.all_started()) {
    run.kept_frames = false;
    take_early_of_all(run);
  }
}

// Ends a run together with the frames of it that nobody will look at again.
void Core::State::end_run(Run& run) {
  if (run.kept_frames) {
    const EarlyFrames::Key key{site.view.epoch, run.terms().wire_channel, run.terms().sequence};
    for (const PeerId& peer : site.view.members) (void)early.take(peer, key);
  }
  run.end();
}

}  // namespace reef
