// Pair exchanges: outside the channel's order and the commit rule. One lives in one view, and ends
// at the latest with it.

#include <deque>
#include <set>
#include <string>

#include "atoll/collective/planning.h"
#include "atoll/collective/state.h"

namespace reef {

namespace {

constexpr std::size_t kExchangesRemembered = 1'024;

bool is_send(Channel wire) { return (wire & (kSendUpBit | kSendDownBit)) != 0; }

template <typename Key>
void remember(std::set<Key>& known, std::deque<Key>& order, const Key& key) {
  if (known.insert(key).second) order.push_back(key);
  if (order.size() <= kExchangesRemembered) return;
  known.erase(order.front());
  order.pop_front();
}

}  // namespace

// The channel on the wire: exchanges and the two directions of sends do not meet.
Channel Core::State::pair_channel(const OpRequest& request, Rank partner) const {
  if (request.kind == OpKind::exchange) return request.channel | kExchangeBit;
  const bool up = (request.kind == OpKind::send) == (site.self < partner);
  return request.channel | kExchangeBit | (up ? kSendUpBit : kSendDownBit);
}

void Core::State::begin_exchange(const OpRequest& request) {
  Op op;
  op.request = request;
  const auto rank = ranks.find(request.partner);
  const bool possible = member && !frozen && rank != ranks.end();
  const Rank partner = possible ? rank->second : Rank{0};
  const ExchangeKey key{pair_channel(request, partner), request.tag, partner};
  if (!possible || exchanges.contains(key)) {
    watch(op);
    const Code code = !member ? Code::not_member : possible ? Code::invalid : Code::peer_lost;
    complete(op, code, site.view.epoch, request.tag);
    return;
  }
  failed_exchanges.erase(key);
  ended_receipts.erase(key);
  Exchange& exchange = exchanges.try_emplace(key, site).first->second;
  exchange.op = op;
  watch(exchange.op);
  Run::Terms terms;
  terms.wire_channel = key.channel;
  terms.sequence = request.tag;
  terms.op = request.id;
  terms.description = describe(request);
  terms.priority = request.priority;
  terms.pair = true;
  terms.partner = key.partner;
  terms.tells = request.kind != OpKind::send;
  terms.hears = request.kind != OpKind::recv;
  exchange.run.begin(terms, make_plan(request, terms.description, site.self, site.view, {}));
  if (!early.empty()) take_early(exchange.run, key.partner);
  settle_exchange(key);
}

Status Core::State::deliver_exchange(const PeerId& from, Rank rank, const FrameHeader& header,
                                     std::span<const std::byte> payload) {
  const ExchangeKey key{header.channel, header.sequence, rank};
  const auto found = exchanges.find(key);
  if (found == exchanges.end()) {
    if (failed_exchanges.contains(key)) return Unit{};
    if (header.type == FrameType::start) {
      ended_receipts.erase(key);
    } else if (header.type == FrameType::done && ended_receipts.contains(key)) {
      return Unit{};
    }
    ++tally.early_frames;
    const Channel channel = header.channel & ~kPairBits;
    if (header.type == FrameType::start && is_send(header.channel) && listened.contains(channel)) {
      site.actions.emplace_back(Offered{from, channel, header.sequence});
    }
    return early.keep(from, header, payload);
  }
  Run& run = found->second.run;
  switch (run.take(rank, header, payload)) {
    case Verdict::wrong:
      return Error{Code::protocol, 0,
                   "peer " + from.shorthand() + " sent a frame that does not fit exchange " +
                       std::to_string(header.sequence)};
    case Verdict::unclear:
      run.kept_frames = true;
      ++tally.early_frames;
      return early.keep(from, header, payload);
    case Verdict::taken: break;
  }
  settle_exchange(key);
  return Unit{};
}

void Core::State::listen(Channel channel) {
  if (!listened.insert(channel).second) return;
  for (Rank rank = 0; rank < site.view.size(); ++rank) {
    if (rank == site.self) continue;
    const PeerId& peer = site.view.members[rank];
    const Channel wire = channel | kExchangeBit | (rank < site.self ? kSendUpBit : kSendDownBit);
    for (const EarlyFrames::Key& key : early.started(peer, site.view.epoch, wire)) {
      site.actions.emplace_back(Offered{peer, channel, key.sequence});
    }
  }
}

void Core::State::settle_exchange(const ExchangeKey& key) {
  Run& run = exchanges.at(key).run;
  if (run.kept_frames && run.all_started()) {
    run.kept_frames = false;
    take_early(run, key.partner);
  }
  run.announce();
  if (run.failed()) {
    end_exchange(key, code_of(run.outcome()));
  } else if (run.settled()) {
    end_exchange(key, Code::ok);
  }
}

void Core::State::end_exchange(ExchangeKey key, Code code) {
  const auto found = exchanges.find(key);
  Exchange& exchange = found->second;
  const bool receipt = !exchange.run.terms().hears;
  end_run(exchange.run);
  complete(exchange.op, code, site.view.epoch, key.tag);
  exchanges.erase(found);
  if (code != Code::ok) {
    remember(failed_exchanges, failed_exchanges_order, key);
  } else if (receipt) {
    remember(ended_receipts, ended_receipts_order, key);
  }
}

void Core::State::end_exchanges(Code code) {
  while (!exchanges.empty()) end_exchange(exchanges.begin()->first, code);
}

void Core::State::expire_exchange(Op& op, Reason reason) {
  const Rank partner = ranks.at(op.request.partner);
  const ExchangeKey key{pair_channel(op.request, partner), op.request.tag, partner};
  Run& run = exchanges.at(key).run;
  // After DONE(0) the partner may have ended the exchange well, and needs no more news of it.
  if (!run.good()) run.fail(reason);
  end_exchange(key, code_of(reason));
}

}  // namespace reef
