// Calls and rounds. dialer_attempt.cpp has the handshake.
#include "atoll/net/dialer.h"

#include <algorithm>
#include <utility>

#include "atoll/net/dialer_call.h"

namespace reef {

namespace {

// A joiner often dials a moment before the other side listens or knows of it: the first pauses are
// short. The longest bounds both the traffic and the delay after the other side has come back.
constexpr Nanos kFirstPause = 20 * kMillisecond;
constexpr Nanos kLongestPause = 500 * kMillisecond;
// An address that does not answer at all delays the next one by so long.
constexpr Nanos kStagger = 250 * kMillisecond;

}  // namespace

Dialer::Dialer(Poller& poller, const Options& options, DialerOwner& owner)
    : poller_(poller), options_(options), owner_(owner) {}

Dialer::~Dialer() = default;

void Dialer::sweep() { dead_.clear(); }

Dialer::Call& Dialer::begin(const Key& key, const Endpoints& endpoints,
                            std::shared_ptr<const Detour> detour) {
  auto& call = *calls_.emplace(key, std::make_unique<Call>()).first->second;
  call.key = key;
  call.pause = kFirstPause;
  call.detour = std::move(detour);
  for (const Endpoint& endpoint : endpoints) {
    if (call.routes.size() + call.names.size() >= limits::kMaxRoutes) {
      break;
    }
    const std::string text = endpoint_text(endpoint.host, endpoint.port);
    call.where += (call.where.empty() ? "" : ", ") + text;
    auto numeric = resolve(endpoint.host, endpoint.port, true);
    if (!numeric || numeric.value().empty()) {
      call.names.push_back({endpoint});
      continue;
    }
    for (const Address& address : numeric.value()) {
      call.routes.push_back({address, text, call.detour});
    }
  }
  if (call.detour) {
    call.where += " (relay " + call.detour->relay.shorthand() + ")";
  }
  return call;
}

void Dialer::dial(const PeerId& peer, const Endpoints& endpoints, std::uint32_t connections,
                  std::uint32_t most, Nanos began, Nanos now,
                  std::shared_ptr<const Detour> detour) {
  cancel(peer);
  Call& call = begin({peer, Call::kLink}, endpoints, std::move(detour));
  call.connections = connections;
  call.most = most;
  call.began = began;
  call.deadline = began + options_.dial_timeout;
  begin_round(call, now);
}

void Dialer::redial(const PeerId& peer, std::uint32_t slot, const Nonce& nonce,
                    std::vector<Route> routes, const Endpoints& endpoints, Nanos now) {
  cancel_repair(peer, slot);
  Call& call = begin({peer, slot}, routes.empty() ? endpoints : Endpoints{});
  call.began = now;
  call.nonce = nonce;
  if (!routes.empty()) {
    call.routes = std::move(routes);
    call.where = call.routes.front().text;
    if (const auto& detour = call.routes.front().detour) {
      call.where += " (relay " + detour->relay.shorthand() + ")";
    }
  }
  begin_round(call, now);
}

void Dialer::answer(const PeerId& asker, std::shared_ptr<const Detour> detour,
                    std::vector<Route> routes, const Endpoints& endpoints, Nanos now) {
  const auto answers = std::count_if(calls_.begin(), calls_.end(),
                                     [](const auto& one) { return one.second->answers(); });
  if (static_cast<std::size_t>(answers) >= limits::kMaxAnswers) {
    return;
  }
  const Key key{asker, Call::kLink - ++last_answer_};
  Call& call = begin(key, routes.empty() ? endpoints : Endpoints{}, detour);
  for (Route& route : routes) {
    route.detour = detour;
    call.routes.push_back(std::move(route));
  }
  call.began = now;
  call.deadline = now + options_.handshake_timeout;
  begin_round(call, now);
}

void Dialer::erase(std::map<Key, std::unique_ptr<Call>>::iterator at) {
  for (auto& attempt : at->second->attempts) {
    hang_up(*attempt);
  }
  calls_.erase(at);
}

bool Dialer::cancel(const PeerId& peer) {
  bool was_dialled = false;
  auto at = calls_.lower_bound({peer, Call::kLink});
  while (at != calls_.end() && at->first.first == peer) {
    was_dialled = was_dialled || !at->second->repair();
    erase(at++);
  }
  return was_dialled;
}

void Dialer::cancel_repair(const PeerId& peer, std::uint32_t slot) {
  const auto at = calls_.find({peer, slot});
  if (at != calls_.end()) {
    erase(at);
  }
}

bool Dialer::has_contact(const Key& key) const {
  const auto at = calls_.find(key);
  return at != calls_.end() &&
         std::any_of(at->second->attempts.begin(), at->second->attempts.end(),
                     [](const auto& attempt) { return attempt->in_contact(); });
}

bool Dialer::in_contact(const PeerId& peer) const { return has_contact({peer, Call::kLink}); }

bool Dialer::in_contact(const PeerId& peer, std::uint32_t slot) const {
  return has_contact({peer, slot});
}

// ---- a round through all addresses --------------------------------------------------------------

void Dialer::begin_round(Call& call, Nanos now) {
  call.next_round = kNever;
  call.next_start = now;
  call.next_route = 0;
  call.all_refused = true;
  for (Call::Name& name : call.names) {
    if (!name.known && name.ticket == 0) {
      name.ticket = ++last_ticket_;
      owner_.look_up(name.ticket, name.endpoint.host, name.endpoint.port);
    }
  }
  advance(call, now);
}

// Starts the attempts that are due, and ends the round when there is nothing left to try in it.
void Dialer::advance(Call& call, Nanos now) {
  while (!call.over && call.next_route < call.routes.size() && now >= call.next_start) {
    // Who has answered the phone is given the time to say who he is.
    if (std::any_of(call.attempts.begin(), call.attempts.end(),
                    [](const auto& one) { return one->connected(); })) {
      call.next_start = now + kStagger;
      return;
    }
    const Route route = call.routes[call.next_route++];
    if (attempt(call, route, now)) {
      call.next_start = now + kStagger;
    }
  }
  if (call.next_route == call.routes.size() && call.attempts.empty() && !call.looking_up()) {
    end_round(call, now);
  }
}

void Dialer::end_round(Call& call, Nanos now) {
  if (call.repair() && call.all_refused && call.tries > 0) {
    owner_.irreparable(call.key.first, call.slot(),
                       "dialling " + call.where + " again: " + call.last_error);
    call.over = true;
    return;
  }
  call.next_round = now + call.pause;
  call.pause = std::min(2 * call.pause, kLongestPause);
}

void Dialer::resolved(std::uint64_t ticket, Result<std::vector<Address>> addresses, Nanos now) {
  for (auto& [key, call] : calls_) {
    const auto name = std::find_if(call->names.begin(), call->names.end(),
                                   [ticket](const auto& one) { return one.ticket == ticket; });
    if (name == call->names.end()) {
      continue;
    }
    name->ticket = 0;
    if (!addresses || addresses.value().empty()) {
      call->last_error = addresses ? "host " + name->endpoint.host + " has no address"
                                   : addresses.error().message;
      call->all_refused = false;
    } else {
      name->known = true;
      const std::string text = endpoint_text(name->endpoint.host, name->endpoint.port);
      for (const Address& address : addresses.value()) {
        if (call->routes.size() < limits::kMaxRoutes) {
          call->routes.push_back({address, text, call->detour});
        }
      }
    }
    if (call->next_round == kNever && !call->over) {
      advance(*call, now);
    }
    return;
  }
}

// ---- time ---------------------------------------------------------------------------------------

void Dialer::give_up(Call& call, Nanos now) {
  const std::string message =
      "peer " + call.key.first.shorthand() + " at " + call.where + " could not be reached: " +
      call.last_error + " (" + std::to_string(call.tries) + " tries in " +
      std::to_string((now - call.began) / kMillisecond) + " ms)";
  const PeerId peer = call.key.first;
  const bool answers = call.answers();
  erase(calls_.find(call.key));
  if (!answers) {
    owner_.unreachable(peer, message);
  }
}

Nanos Dialer::tick(Nanos now) {
  Nanos next = kNever;
  std::vector<Key> keys;  // giving up changes the map
  for (const auto& [key, call] : calls_) {
    keys.push_back(key);
  }
  for (const Key& key : keys) {
    const auto at = calls_.find(key);
    if (at == calls_.end() || at->second->over) {
      continue;
    }
    Call& call = *at->second;
    if (now >= call.deadline) {
      give_up(call, now);
      continue;
    }
    for (std::size_t i = call.attempts.size(); i-- > 0;) {
      if (i < call.attempts.size() && now >= call.attempts[i]->deadline) {
        fail(*call.attempts[i], "no answer", 0, now);
      }
    }
    if (now >= call.next_round) {
      begin_round(call, now);
    } else if (call.next_route < call.routes.size() && now >= call.next_start) {
      advance(call, now);
    }
    if (call.over) {
      continue;
    }
    next = std::min({next, call.deadline, call.next_round});
    if (call.next_round == kNever && call.next_route < call.routes.size()) {
      next = std::min(next, call.next_start);
    }
    for (const auto& attempt : call.attempts) {
      next = std::min(next, attempt->deadline);
    }
  }
  return next;
}

}  // namespace reef
