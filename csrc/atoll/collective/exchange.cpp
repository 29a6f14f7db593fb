// Pair exchanges: outside the channel's order and the commit rule. One lives in one view, and ends
// at the latest with it.

#include <string>

#include "atoll/collective/state.h"

namespace reef {

namespace {

constexpr std::size_t kFailedExchangesKept = 1'024;

}  // namespace

void Core::State::begin_exchange(const OpRequest& request) {
  Op op;
  op.request = request;
  const auto rank = ranks.find(request.partner);
  const bool possible = member && !frozen && rank != ranks.end();
  const ExchangeKey key{request.channel | kExchangeBit, request.tag,
                        possible ? rank->second : Rank{0}};
  if (!possible || exchanges.contains(key)) {
    watch(op);
    const Code code = !member ? Code::not_member : possible ? Code::invalid : Code::peer_lost;
    complete(op, code, site.view.epoch, request.tag);
    return;
  }
  failed_exchanges.erase(key);
  Exchange& exchange = exchanges.try_emplace(key, site).first->second;
  exchange.op = op;
  watch(exchange.op);
  Run::Terms terms;
  terms.wire_channel = key.channel;
  terms.sequence = request.tag;
  terms.op = request.id;
  terms.description = describe(op);
  terms.pair = true;
  terms.partner = key.partner;
  exchange.run.begin(terms, plan_for(op, terms.description));
  if (!early.empty()) take_early(exchange.run, key.partner);
  settle_exchange(key);
}

Status Core::State::deliver_exchange(const PeerId& from, Rank rank, const FrameHeader& header,
                                     std::span<const std::byte> payload) {
  const ExchangeKey key{header.channel, header.sequence, rank};
  const auto found = exchanges.find(key);
  if (found == exchanges.end()) {
    if (failed_exchanges.contains(key)) return Unit{};
    ++tally.early_frames;
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
  end_run(exchange.run);
  complete(exchange.op, code, site.view.epoch, key.tag);
  exchanges.erase(found);
  if (code == Code::ok) return;
  if (failed_exchanges.insert(key).second) failed_exchanges_order.push_back(key);
  if (failed_exchanges_order.size() > kFailedExchangesKept) {
    failed_exchanges.erase(failed_exchanges_order.front());
    failed_exchanges_order.pop_front();
  }
}

void Core::State::end_exchanges(Code code) {
  while (!exchanges.empty()) end_exchange(exchanges.begin()->first, code);
}

void Core::State::expire_exchange(Op& op, Reason reason) {
  const ExchangeKey key{op.request.channel | kExchangeBit, op.request.tag,
                        ranks.at(op.request.partner)};
  Run& run = exchanges.at(key).run;
  // After DONE(0) the partner may have ended the exchange well, and needs no more news of it.
  if (!run.good()) run.fail(reason);
  end_exchange(key, code_of(reason));
}

}  // namespace reef
