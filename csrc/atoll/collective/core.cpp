#include "atoll/collective/core.h"

#include <cstring>

#include "atoll/collective/state.h"

namespace reef {

namespace {

Error invalid(const char* why) { return Error{Code::invalid, 0, why}; }

// A chunk cuts no number of any dtype.
bool fit_chunk(std::uint32_t bytes) {
  return bytes <= limits::kMaxPayload && bytes % 4 == 0;
}

}  // namespace

Core::State::State(PeerId self_id, CoreOptions core_options)
    : self(self_id), options(core_options) {
  check(fit_chunk(options.chunk_bytes), "CoreOptions: chunk_bytes is no multiple of 4 up to 4 MiB");
  site.eager_bytes = options.eager_bytes;
  site.flat_done_members = options.flat_done_members;
}

// Why the request cannot be taken, if so.
Status Core::State::refuse(const OpRequest& request) const {
  if (closed) return Error{Code::closed, 0, "the core is closed"};
  if (request.id == 0 || waiting.contains(request.id)) return invalid("the op's id is not new");
  if (Status status = check_request(request); !status.ok()) return status;
  if (request.kind == OpKind::broadcast && request.root == self &&
      request.in.size() != request.out.size()) {
    return invalid("the root's input has not count elements");
  }
  if (is_pairwise(request.kind)) {
    if (request.partner == self) return invalid("a pair's op needs a partner");
  } else if (!channels.contains(request.channel) && channels.size() >= limits::kMaxChannels) {
    return invalid("there are too many channels");
  }
  return Unit{};
}

ChannelState& Core::State::channel(Channel id) {
  ChannelState& found = channels.try_emplace(id, site).first->second;
  found.id = id;
  return found;
}

void Core::State::watch(Op& op) {
  waiting.emplace(op.request.id, &op);
  if (op.request.deadline != kNever) deadlines.emplace(op.request.deadline, op.request.id);
}

void Core::State::complete(Op& op, Code code, Epoch epoch, Sequence sequence,
                           const Summary& summary) {
  const OpId id = op.request.id;
  if (code != Code::ok && op.request.restore && !op.request.out.empty()) {
    std::memcpy(op.request.out.data(), op.request.in.data(), op.request.out.size());
  }
  site.actions.emplace_back(Release{id});
  site.actions.emplace_back(Complete{id, code, epoch, sequence, summary});
  deadlines.erase({op.request.deadline, id});
  waiting.erase(id);
  if (code != Code::ok) ++tally.ops_failed;
  op.caller_gone = true;
  op.request.in = {};
  op.request.out = {};
  op.request.keep.reset();
}

Core::Core(PeerId self, CoreOptions options) : state_(std::make_unique<State>(self, options)) {}

Core::~Core() = default;

Status Core::submit(const OpRequest& request, Nanos /*now*/) {
  Status refused = state_->refuse(request);
  if (!refused.ok()) return refused;
  if (is_pairwise(request.kind)) {
    state_->begin_exchange(request);
    return Unit{};
  }
  ChannelState& channel = state_->channel(request.channel);
  auto op = std::make_unique<Op>();
  op->request = request;
  op->ordinal = channel.submitted++;
  state_->watch(*op);
  channel.queue.push_back(std::move(op));
  state_->advance(channel);
  return Unit{};
}

void Core::abort(OpId op, Nanos /*now*/) {
  const auto found = state_->waiting.find(op);
  if (found != state_->waiting.end()) state_->expire(*found->second, Reason::aborted);
}

void Core::listen(Channel channel) {
  if (!state_->closed) state_->listen(channel);
}

void Core::close() {
  State& state = *state_;
  if (state.closed) return;
  state.closed = true;
  state.pending.reset();
  for (auto& [id, channel] : state.channels) {
    channel.run.drop_plan();
    for (const auto& op : channel.queue) {
      if (op->caller_gone) continue;
      state.complete(*op, Code::closed, state.site.view.epoch, channel.number_of(*op));
    }
  }
  state.end_exchanges(Code::closed);
}

void Core::fence(std::uint64_t attempt, Change kind, Nanos /*now*/) {
  if (!state_->closed) state_->fence(attempt, kind);
}

void Core::install(const View& view, const Starts& starts, Change kind, Nanos /*now*/) {
  if (!state_->closed) state_->install(view, starts, kind);
}

std::span<std::byte> Core::place(const PeerId& from, const FrameHeader& header, OpId& op) {
  op = 0;
  return state_->place(from, header, op);
}

Status Core::deliver(const PeerId& from, const FrameHeader& header,
                     std::span<const std::byte> payload, Nanos /*now*/) {
  return state_->deliver(from, header, payload);
}

void Core::link_down(const PeerId& peer, Nanos /*now*/) {
  State& state = *state_;
  if (state.closed) return;
  state.early.drop(peer);
  const auto rank = state.ranks.find(peer);
  if (rank == state.ranks.end()) return;
  std::vector<ExchangeKey> lost;
  for (const auto& [key, exchange] : state.exchanges) {
    if (key.partner == rank->second) lost.push_back(key);
  }
  for (const ExchangeKey& key : lost) state.end_exchange(key, Code::peer_lost);
}

Nanos Core::tick(Nanos now) {
  State& state = *state_;
  while (!state.deadlines.empty() && state.deadlines.begin()->first <= now) {
    const OpId id = state.deadlines.begin()->second;
    state.deadlines.erase(state.deadlines.begin());
    state.expire(*state.waiting.at(id), Reason::deadline);
  }
  return state.deadlines.empty() ? kNever : state.deadlines.begin()->first;
}

bool Core::next(Action& action) {
  std::deque<Action>& actions = state_->site.actions;
  if (actions.empty()) return false;
  action = std::move(actions.front());
  actions.pop_front();
  return true;
}

bool Core::pull(const PeerId& to, Send& frame) { return state_->pull(to, frame); }

const View& Core::view() const { return state_->site.view; }
Progress Core::progress() const { return state_->progress(); }
const Core::Tally& Core::tally() const { return state_->tally; }

}  // namespace reef
