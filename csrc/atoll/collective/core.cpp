#include "atoll/collective/core.h"

#include <string>

#include "atoll/collective/state.h"

namespace reef {

namespace {

Error invalid(const char* why) { return Error{Code::invalid, 0, why}; }

bool overlap(std::span<const std::byte> a, std::span<const std::byte> b) {
  if (a.empty() || b.empty()) return false;
  const std::less<const std::byte*> before;
  return before(a.data(), b.data() + b.size()) && before(b.data(), a.data() + a.size());
}

bool aligned(std::span<const std::byte> buffer) {
  return reinterpret_cast<std::uintptr_t>(buffer.data()) % alignof(float) == 0;
}

// A multiple of the element's size, so that no chunk cuts a number.
bool fit_chunk(std::uint32_t bytes) {
  return bytes > 0 && bytes <= limits::kMaxPayload && bytes % sizeof(float) == 0;
}

Status check_buffers(const OpRequest& request, bool reads_in) {
  const std::uint64_t bytes = request.count * dtype_bytes(request.dtype);
  if (request.out.size() != bytes) return invalid("the output's size is not count elements");
  if (!aligned(request.out)) return invalid("the output is not aligned to its elements");
  if (!reads_in) return Unit{};
  if (request.in.size() != bytes) return invalid("the input's size is not count elements");
  if (!aligned(request.in)) return invalid("the input is not aligned to its elements");
  if (overlap(request.in, request.out)) return invalid("input and output overlap");
  return Unit{};
}

}  // namespace

Core::State::State(PeerId self_id, CoreOptions core_options)
    : self(self_id), options(core_options) {
  check(fit_chunk(options.chunk_bytes), "CoreOptions: chunk_bytes is no multiple of 4 up to 4 MiB");
  site.eager_bytes = options.eager_bytes;
}

// Why the request cannot be taken, if so.
Status Core::State::refuse(const OpRequest& request) const {
  if (closed) return Error{Code::closed, 0, "the core is closed"};
  if (request.id == 0 || waiting.contains(request.id)) return invalid("the op's id is not new");
  if ((request.channel & kExchangeBit) != 0) return invalid("the channel's number is too large");
  if (request.dtype != DType::f32) return invalid("the dtype is unknown");
  if (request.count > limits::kMaxVectorBytes / dtype_bytes(request.dtype)) {
    return invalid("the op has too many elements");
  }
  if (request.chunk_bytes != 0 && !fit_chunk(request.chunk_bytes)) {
    return invalid("chunk_bytes is no multiple of 4 up to 4 MiB");
  }
  const bool counted = request.kind != OpKind::exchange;
  if (counted && !channels.contains(request.channel) && channels.size() >= limits::kMaxChannels) {
    return invalid("there are too many channels");
  }
  switch (request.kind) {
    case OpKind::barrier: return Unit{};
    case OpKind::broadcast: return check_buffers(request, request.root == self);
    case OpKind::all_reduce:
      if (request.plan > Plan::direct) return invalid("the plan is unknown");
      return check_buffers(request, true);
    case OpKind::exchange:
      if (request.partner == self) return invalid("an exchange needs a partner");
      return check_buffers(request, true);
  }
  return invalid("the kind of op is unknown");
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

void Core::State::complete(Op& op, Code code, Epoch epoch, Sequence sequence) {
  const OpId id = op.request.id;
  site.actions.emplace_back(Release{id});
  site.actions.emplace_back(Complete{id, code, epoch, sequence});
  deadlines.erase({op.request.deadline, id});
  waiting.erase(id);
  if (code != Code::ok) ++tally.ops_failed;
  op.caller_gone = true;
  op.request.in = {};
  op.request.out = {};
}

Core::Core(PeerId self, CoreOptions options) : state_(std::make_unique<State>(self, options)) {}

Core::~Core() = default;

Status Core::submit(const OpRequest& request, Nanos /*now*/) {
  Status refused = state_->refuse(request);
  if (!refused.ok()) return refused;
  if (request.kind == OpKind::exchange) {
    state_->begin_exchange(request);
    return Unit{};
  }
  ChannelState& channel = state_->channel(request.channel);
  auto op = std::make_unique<Op>();
  op->request = request;
  op->ordinal = channel.submitted++;
  if (request.kind == OpKind::barrier) {
    op->request.count = 0;
    op->request.in = {};
    op->request.out = {};
  }
  state_->watch(*op);
  channel.queue.push_back(std::move(op));
  state_->advance(channel);
  return Unit{};
}

void Core::abort(OpId op, Nanos /*now*/) {
  const auto found = state_->waiting.find(op);
  if (found != state_->waiting.end()) state_->expire(*found->second, Reason::aborted);
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

const View& Core::view() const { return state_->site.view; }
Progress Core::progress() const { return state_->progress(); }
const Core::Tally& Core::tally() const { return state_->tally; }

}  // namespace reef
