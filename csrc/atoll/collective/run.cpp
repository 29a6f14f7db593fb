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
    case Reason::view_changed: return Code::view_changed;
  }
  return Code::aborted;
}

Reason graver(Reason a, Reason b) {
  if (a == Reason::none || b == Reason::none) return std::max(a, b);
  // Members that made an op for different views may well disagree about its sizes, too.
  if (a == Reason::view_changed || b == Reason::view_changed) return Reason::view_changed;
  return std::min(a, b);
}

void RunSite::enter(const View& next, Rank rank) {
  view = next;
  self = rank;
  eager.assign(view.size(), EagerLoad{});
  lanes.assign(view.size(), {});
}

void RunSite::offer(Rank to, Run& run) {
  Run::Party& receiver = run.party(to);
  if (receiver.offered) return;
  receiver.offered = true;
  std::vector<Run*>& lane = lanes[to];
  if (lane.empty()) actions.emplace_back(DataReady{view.members[to]});
  const auto less_urgent = [&run](const Run* other) {
    return other->terms_.priority < run.terms_.priority;
  };
  lane.insert(std::find_if(lane.begin(), lane.end(), less_urgent), &run);
}

void RunSite::withdraw(Run& run) {
  for (std::vector<Run*>& lane : lanes) std::erase(lane, &run);
  for (Run::Party& each : run.parties_) each.offered = false;
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

const Weights& Run::expect(Rank members, Rank self, double own) {
  weights_.begin(members, self, own);
  return weights_;
}

void Run::begin(const Terms& terms, std::unique_ptr<PlanRun> plan) {
  terms_ = terms;
  plan_ = std::move(plan);
  parties_.resize(terms.pair ? 1 : site_.view.size());
  others_ = terms.pair ? 1 : site_.view.size() - 1;
  starts_missing_ = others_;
  if (!terms.pair) {
    notes_.assign(site_.view.size(), 0);
    notes_[site_.self] = terms.description.note;
  }
  notify(FrameType::start, 0);
  if (plan_) plan_->begin(*this);
}

void Run::fail(Reason reason) {
  check(reason != Reason::none && reason_ == Reason::none, "a run fails once, for a reason");
  reason_ = reason;
  worst_ = graver(worst_, reason);
  drop_plan();
  notify(FrameType::done, static_cast<std::uint16_t>(reason));
}

void Run::announce() {
  if (good_ || failed() || !all_started() || (plan_ && !plan_->complete())) return;
  good_ = true;
  if (!terms_.tells) return;
  if (along_tree()) {
    tell_tree();
  } else {
    notify(FrameType::done, 0);
  }
}

bool Run::along_tree() const {
  return !terms_.pair && site_.view.size() > site_.flat_done_members;
}

// Rank r's children are 2r+1 and 2r+2.
void Run::tell_tree() {
  const Rank first = 2 * site_.self + 1;
  const Rank members = site_.view.size();
  const Rank children = first >= members ? 0 : std::min<Rank>(2, members - first);
  if (!good() || branch_told_ || branches_good_ < children) return;
  branch_told_ = true;
  if (site_.self != 0) {
    notify_one((site_.self - 1) / 2, kBranchDone);
  } else {
    everyone_good_ = true;
  }
  if (!everyone_good_) return;
  for (Rank child = first; child < first + children; ++child) notify_one(child, kEveryoneDone);
}

Verdict Run::take_tree_done(Rank from, std::uint16_t phase) {
  if (!along_tree()) return Verdict::wrong;
  Party& sender = party(from);
  if (phase == kBranchDone) {
    if (from == 0 || (from - 1) / 2 != site_.self) return Verdict::wrong;
    if (!sender.done) ++branches_good_;
    sender.done = true;
    tell_tree();
    return Verdict::taken;
  }
  // The root has heard from this member's branch, or is not honest.
  if (site_.self == 0 || from != (site_.self - 1) / 2) return Verdict::wrong;
  if (failed() || everyone_good_) return Verdict::taken;
  if (!branch_told_) return Verdict::wrong;
  everyone_good_ = true;
  const Rank first = 2 * site_.self + 1;
  for (Rank child = first; child < first + 2 && child < site_.view.size(); ++child) {
    notify_one(child, kEveryoneDone);
  }
  return Verdict::taken;
}

void Run::drop_plan() {
  if (!plan_) return;
  site_.withdraw(*this);
  for (Party& each : parties_) each.chunks.clear();
  report_ = plan_->report();
  plan_.reset();
  site_.actions.emplace_back(Release{terms_.op});
}

Summary Run::summary() const {
  Summary summary{terms_.description.plan, site_.view.size(), 0, 0,
                  plan_ ? plan_->report() : report_, {}, notes_,
                  terms_.description.chunk_bytes};
  if (terms_.description.reduction != Reduction::none) {
    summary.contributors = weights_.contributors();
    summary.total_weight = weights_.total();
    summary.weights = weights_.all();
  }
  return summary;
}

void Run::end() {
  if (parties_.empty()) return;
  for_others([this](Rank rank, Party& each) { return_eager(rank, each); });
  site_.withdraw(*this);
  plan_.reset();
  report_ = {};
  parties_.clear();
  terms_ = {};
  others_ = starts_missing_ = heard_good_ = heard_failed_ = 0;
  reason_ = worst_ = Reason::none;
  good_ = kept_frames = false;
  branches_good_ = 0;
  branch_told_ = everyone_good_ = false;
}

bool Run::settled() const {
  if (failed()) return heard_failed_ == others_;
  if (!good_ || !terms_.hears) return good_;
  return along_tree() ? everyone_good_ : heard_good_ == others_;
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
    Send action{site_.view.members[rank], notice, {}, {}, nullptr, 0};
    if (type == FrameType::start) action.owned.assign(description.begin(), description.end());
    site_.actions.emplace_back(std::move(action));
  });
}

void Run::notify_one(Rank to, std::uint16_t phase) {
  FrameHeader notice = header(FrameType::done);
  notice.phase = phase;
  site_.actions.emplace_back(Send{site_.view.members[to], notice, {}, {}, nullptr, 0});
}

void Run::send(Rank to, std::uint16_t phase, std::uint64_t offset, std::uint32_t length) {
  Party& receiver = party(to);
  receiver.chunks.push_back({offset, length, phase});
  if (may_send(to, receiver)) site_.offer(to, *this);
}

// Whether the first of its chunks may go: before its START a member is sent little.
bool Run::may_send(Rank to, Party& receiver) {
  if (receiver.chunks.empty()) return false;
  if (receiver.started) return true;
  if (receiver.must_start) return false;
  const EagerLoad& load = site_.eager[to];
  const std::size_t bytes = receiver.chunks.front().length;
  receiver.must_start = receiver.eager_bytes + bytes > site_.eager_bytes ||
                        load.bytes + bytes > EagerLoad::kMaxBytes ||
                        load.frames >= EagerLoad::kMaxFrames;
  return !receiver.must_start;
}

bool Run::pull(Rank to, Send& frame) {
  Party& receiver = party(to);
  if (!may_send(to, receiver)) {
    receiver.offered = false;
    return false;
  }
  const Chunk chunk = receiver.chunks.front();
  receiver.chunks.pop_front();
  if (!receiver.started) {
    receiver.eager_bytes += chunk.length;
    ++receiver.eager_frames;
    site_.eager[to].bytes += chunk.length;
    ++site_.eager[to].frames;
  }
  Payload payload = plan_->payload(to, chunk.phase, chunk.offset);
  check(payload.bytes.size() == chunk.length, "a plan's payload is not as long as announced");
  FrameHeader data = header(FrameType::data);
  data.phase = chunk.phase;
  data.length = chunk.length;
  data.offset = chunk.offset;
  frame = Send{site_.view.members[to], data, payload.bytes, {}, std::move(payload.keep), terms_.op};
  return true;
}

void Run::return_eager(Rank rank, Party& each) {
  site_.eager[rank].bytes -= each.eager_bytes;
  site_.eager[rank].frames -= each.eager_frames;
  each.eager_bytes = 0;
  each.eager_frames = 0;
}

std::span<std::byte> Run::place(Rank from, const FrameHeader& header) {
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
  const bool equal = terms_.description.same_op(description.value());
  Party& sender = party(from);
  if (sender.started) return equal || failed() ? Verdict::taken : Verdict::wrong;
  sender.started = true;
  --starts_missing_;
  return_eager(from, sender);
  if (!equal && !failed()) fail(Reason::mismatch);
  if (!terms_.pair) {
    weights_.set(from, description.value().weight);
    notes_[from] = description.value().note;
  }
  if (may_send(from, sender)) site_.offer(from, *this);
  if (plan_) plan_->heard(from, *this);
  return Verdict::taken;
}

Verdict Run::take_data(Rank from, const FrameHeader& header, std::span<const std::byte> payload) {
  if (failed()) return Verdict::taken;
  const ChunkName chunk{from, header.phase, header.offset, header.length};
  if (plan_ && plan_->deliver(chunk, payload, *this)) return Verdict::taken;
  return all_started() ? Verdict::wrong : Verdict::unclear;
}

Verdict Run::take_done(Rank from, const FrameHeader& header) {
  if (header.length != 0) return Verdict::wrong;
  if (header.phase == kBranchDone || header.phase == kEveryoneDone) {
    return take_tree_done(from, header.phase);
  }
  if (header.phase > kLastReason || (header.phase == 0 && along_tree())) return Verdict::wrong;
  const auto reason = static_cast<Reason>(header.phase);
  Party& sender = party(from);
  if (reason == Reason::none) {
    if (!sender.done) ++heard_good_;
    sender.done = true;
    return Verdict::taken;
  }
  if (sender.reason != Reason::none) return Verdict::taken;
  if (sender.done && !along_tree()) --heard_good_;
  sender.done = true;
  sender.reason = reason;
  ++heard_failed_;
  worst_ = graver(worst_, reason);
  if (!failed()) fail(reason);
  return Verdict::taken;
}

}  // namespace reef
