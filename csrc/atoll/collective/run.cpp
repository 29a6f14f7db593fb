#include "atoll/collective/run.h"

#include <algorithm>
#include <utility>

namespace reef {

Code code_of(Reason reason) {
  switch (reason) {
    case Reason::none: return Code::ok;
    case Reason::mismatch: return Code::mismatch;
    case Reason::deadline: return Code::deadline;
    case Reason::aborted: return Code::aborted;
    case Reason::root_lost: return Code::peer_lost;
  }
  return Code::aborted;
}

template <typename Visit>
void Run::for_others(Visit visit) {
  if (terms_.pair) {
    visit(terms_.partner, parties_[0]);
    return;
  }
  for (Rank rank = 0; rank < site_.view.size(); ++rank) {
    if (rank != site_.self) visit(rank, parties_[rank]);
  }
}

FrameHeader Run::header(FrameType type) const {
  FrameHeader header;
  header.type = type;
  header.channel = terms_.wire_channel;
  header.epoch = site_.view.epoch;
  header.sequence = terms_.sequence;
  header.sender_rank = site_.self;
  return header;
}

void Run::begin(const Terms& terms, std::unique_ptr<PlanRun> plan) {
  terms_ = terms;
  plan_ = std::move(plan);
  parties_.resize(terms.pair ? 1 : site_.view.size());
  others_ = terms.pair ? 1 : site_.view.size() - 1;
  starts_missing_ = others_;
  notify(FrameType::start, 0);
  if (plan_) plan_->begin(*this);
}

void Run::fail(Reason reason) {
  check(reason != Reason::none && reason_ == Reason::none, "a run fails once, for a reason");
  reason_ = reason;
  worst_ = worst_ == Reason::none ? reason : std::min(worst_, reason);
  drop_plan();
  notify(FrameType::done, static_cast<std::uint16_t>(reason));
}

void Run::announce() {
  if (good_ || failed() || !all_started() || (plan_ && !plan_->complete())) return;
  good_ = true;
  notify(FrameType::done, 0);
}

void Run::drop_plan() {
  plan_.reset();
  for (Party& each : parties_) each.held.clear();
}

void Run::end() {
  if (parties_.empty()) return;
  for_others([this](Rank rank, Party& each) { return_eager(rank, each); });
  plan_.reset();
  parties_.clear();
  terms_ = {};
  others_ = starts_missing_ = heard_good_ = heard_failed_ = 0;
  reason_ = worst_ = Reason::none;
  good_ = kept_frames = false;
}

bool Run::settled() const {
  return failed() ? heard_failed_ == others_ : good_ && heard_good_ == others_;
}

void Run::notify(FrameType type, std::uint16_t phase) {
  FrameHeader notice = header(type);
  notice.phase = phase;
  DescriptionBytes description{};
  if (type == FrameType::start) {
    description = encode_description(terms_.description);
    notice.length = static_cast<std::uint32_t>(description.size());
  }
  for_others([&](Rank rank, Party&) {
    Send action{site_.view.members[rank], notice, {}, {}, 0};
    if (type == FrameType::start) action.owned.assign(description.begin(), description.end());
    site_.actions.emplace_back(std::move(action));
  });
}

void Run::send(Rank to, std::uint16_t phase, std::uint64_t offset,
               std::span<const std::byte> payload) {
  Party& receiver = party(to);
  const Held chunk{offset, payload, phase};
  if (!receiver.started) {
    EagerLoad& load = site_.eager[to];
    const bool allowed = receiver.held.empty() &&
                         receiver.eager_bytes + payload.size() <= site_.eager_bytes &&
                         load.bytes + payload.size() <= EagerLoad::kMaxBytes &&
                         load.frames < EagerLoad::kMaxFrames;
    if (!allowed) {
      receiver.held.push_back(chunk);
      return;
    }
    receiver.eager_bytes += payload.size();
    ++receiver.eager_frames;
    load.bytes += payload.size();
    ++load.frames;
  }
  emit_data(to, chunk);
}

void Run::emit_data(Rank to, const Held& chunk) {
  FrameHeader data = header(FrameType::data);
  data.phase = chunk.phase;
  data.length = static_cast<std::uint32_t>(chunk.payload.size());
  data.offset = chunk.offset;
  site_.actions.emplace_back(Send{site_.view.members[to], data, chunk.payload, {}, terms_.op});
}

void Run::return_eager(Rank rank, Party& each) {
  site_.eager[rank].bytes -= each.eager_bytes;
  site_.eager[rank].frames -= each.eager_frames;
  each.eager_bytes = 0;
  each.eager_frames = 0;
}

std::span<std::byte> Run::place(Rank from, const FrameHeader& header) const {
  if (!plan_ || header.type != FrameType::data) return {};
  return plan_->place({from, header.phase, header.offset, header.length});
}

Verdict Run::take(Rank from, const FrameHeader& header, std::span<const std::byte> payload) {
  switch (header.type) {
    case FrameType::start: return take_start(from, payload);
    case FrameType::data: return take_data(from, header, payload);
    case FrameType::done: return take_done(from, header);
    default: return Verdict::wrong;
  }
}

Verdict Run::take_start(Rank from, std::span<const std::byte> payload) {
  const Result<OpDescription> description = parse_description(payload);
  if (!description.ok()) return Verdict::wrong;
  const bool equal = description.value() == terms_.description;
  Party& sender = party(from);
  if (sender.started) return equal || failed() ? Verdict::taken : Verdict::wrong;
  sender.started = true;
  --starts_missing_;
  return_eager(from, sender);
  if (!equal && !failed()) fail(Reason::mismatch);
  for (const Held& chunk : std::exchange(sender.held, {})) emit_data(from, chunk);
  return Verdict::taken;
}

Verdict Run::take_data(Rank from, const FrameHeader& header, std::span<const std::byte> payload) {
  if (failed()) return Verdict::taken;
  const ChunkName chunk{from, header.phase, header.offset, header.length};
  if (plan_ && plan_->deliver(chunk, payload, *this)) return Verdict::taken;
  return all_started() ? Verdict::wrong : Verdict::unclear;
}

Verdict Run::take_done(Rank from, const FrameHeader& header) {
  if (header.phase > kLastReason || header.length != 0) return Verdict::wrong;
  const auto reason = static_cast<Reason>(header.phase);
  Party& sender = party(from);
  if (reason == Reason::none) {
    if (!sender.done) ++heard_good_;
    sender.done = true;
    return Verdict::taken;
  }
  if (sender.reason != Reason::none) return Verdict::taken;
  if (sender.done) --heard_good_;
  sender.done = true;
  sender.reason = reason;
  ++heard_failed_;
  worst_ = worst_ == Reason::none ? reason : std::min(worst_, reason);
  if (!failed()) fail(reason);
  return Verdict::taken;
}

}  // namespace reef
