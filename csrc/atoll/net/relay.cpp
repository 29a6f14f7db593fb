#include "atoll/net/relay.h"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>

#include "atoll/net/socket.h"

namespace reef {

namespace {

// So often a buffer is filled and emptied in one turn: then others have theirs.
constexpr int kTurns = 4;

}  // namespace

// Who has asked, until the other has come.
struct Relay::Waiting final : Ready {
  Waiting(Relay& its_relay, const PeerId& its_asker, const PeerId& its_target, Fd its_socket,
          Nanos its_deadline)
      : relay(its_relay),
        asker(its_asker),
        target(its_target),
        nonce(draw_nonce()),
        socket(std::move(its_socket)),
        deadline(its_deadline) {}
  void on_ready(std::uint32_t) override { relay.hang_up(*this); }  // only its end is watched

  Relay& relay;
  PeerId asker;
  PeerId target;
  Nonce nonce;
  Fd socket;
  Registration registration;
  Nanos deadline;
};

// One of the two connections, and what was read from it.
struct Relay::End final : Ready {
  void on_ready(std::uint32_t events) override;

  Carried* carried = nullptr;
  Fd socket;
  Registration registration;
  std::vector<std::byte> bytes;  // [begin, filled) is for the other end
  std::size_t begin = 0;
  std::size_t filled = 0;
  bool finished = false;  // it says nothing more
  bool told = false;      // and the other end knows
};

struct Relay::Carried {
  Carried(Relay& its_relay, const PeerId& its_asker, const PeerId& its_target)
      : relay(its_relay), asker(its_asker), target(its_target) {}
  Relay& relay;
  PeerId asker;
  PeerId target;
  std::array<End, 2> ends;
  bool over = false;
};

void Relay::End::on_ready(std::uint32_t events) {
  if ((events & EPOLLERR) != 0) {
    carried->relay.end(*carried);
  } else {
    carried->relay.move(*carried);
  }
}

Relay::Relay(Poller& poller, const Options& options, RelayOwner& owner)
    : poller_(poller), options_(options), owner_(owner) {}

Relay::~Relay() = default;

Relay::Pair Relay::pair_of(const PeerId& one, const PeerId& other) {
  return one < other ? Pair{one, other} : Pair{other, one};
}

void Relay::allow(const PeerId& one, const PeerId& other, const Ticket& ticket) {
  allowed_[pair_of(one, other)] = ticket;
}

void Relay::forbid(const PeerId& one, const PeerId& other) { allowed_.erase(pair_of(one, other)); }

void Relay::cut_off(const PeerId& peer) {
  std::erase_if(allowed_, [&](const auto& entry) {
    return entry.first.first == peer || entry.first.second == peer;
  });
  for (std::size_t i = waiting_.size(); i-- > 0;) {
    if (waiting_[i]->asker == peer || waiting_[i]->target == peer) {
      hang_up(*waiting_[i]);
    }
  }
  for (std::size_t i = carried_.size(); i-- > 0;) {
    if (carried_[i]->asker == peer || carried_[i]->target == peer) {
      end(*carried_[i]);
    }
  }
}

void Relay::close() {
  allowed_.clear();
  while (!waiting_.empty()) {
    hang_up(*waiting_.back());
  }
  while (!carried_.empty()) {
    end(*carried_.back());
  }
}

// ---- two peers find each other ------------------------------------------------------------------

void Relay::ask(const Hello& hello, Fd socket) {
  const Pair pair = pair_of(hello.sender, hello.receiver);
  const auto allowed = allowed_.find(pair);
  const auto of_pair = static_cast<std::size_t>(
      std::count_if(carried_.begin(), carried_.end(), [&](const auto& one) {
        return pair_of(one->asker, one->target) == pair;
      }));
  if (allowed == allowed_.end() || !same_secret(allowed->second, hello.secret) ||
      waiting_.size() >= limits::kMaxCallsWaiting || of_pair >= limits::kMaxCarriedPerPair ||
      carried_.size() + waiting_.size() >= limits::kMaxCarried) {
    ++tally_.refused;
    return;
  }
  auto waiting = std::make_unique<Waiting>(*this, hello.sender, hello.receiver, std::move(socket),
                                           monotonic_now() + options_.patience);
  auto registration = poller_.add(waiting->socket.get(), EPOLLRDHUP, *waiting);
  if (!registration || !owner_.call(hello.receiver, hello.sender, waiting->nonce)) {
    ++tally_.refused;
    return;
  }
  waiting->registration = std::move(registration.value());
  waiting_.push_back(std::move(waiting));
}

void Relay::answer(const Hello& hello, Fd socket) {
  const auto at = std::find_if(waiting_.begin(), waiting_.end(), [&](const auto& one) {
    return one->target == hello.sender && one->asker == hello.receiver && one->nonce == hello.nonce;
  });
  if (at == waiting_.end()) {
    ++tally_.refused;
    return;
  }
  carry(**at, std::move(socket));
}

void Relay::carry(Waiting& waiting, Fd answered) {
  auto carried = std::make_unique<Carried>(*this, waiting.asker, waiting.target);
  waiting.registration.reset();
  carried->ends[0].socket = std::move(waiting.socket);
  carried->ends[1].socket = std::move(answered);
  hang_up(waiting);
  for (End& one : carried->ends) {
    one.carried = carried.get();
    one.bytes.resize(limits::kCarriedBytes);
    tune(one.socket.get(), options_.silence, options_.keepalive, options_.congestion);
    auto registration = poller_.add(one.socket.get(), EPOLLIN, one);
    if (!registration) {
      ++tally_.refused;
      return;
    }
    one.registration = std::move(registration.value());
  }
  ++tally_.total;
  carried_.push_back(std::move(carried));
}

void Relay::hang_up(Waiting& waiting) {
  const auto at = std::find_if(waiting_.begin(), waiting_.end(),
                               [&](const auto& one) { return one.get() == &waiting; });
  check(at != waiting_.end(), "Relay::hang_up: it does not wait");
  waiting.registration.reset();
  waiting.socket.reset();
  hung_up_.push_back(std::move(*at));
  waiting_.erase(at);
}

Nanos Relay::tick(Nanos now) {
  Nanos next = kNever;
  for (std::size_t i = waiting_.size(); i-- > 0;) {
    if (now >= waiting_[i]->deadline) {
      ++tally_.refused;
      hang_up(*waiting_[i]);
    } else {
      next = std::min(next, waiting_[i]->deadline);
    }
  }
  return next;
}

// ---- bytes --------------------------------------------------------------------------------------

void Relay::move(Carried& carried) {
  auto& [one, other] = carried.ends;
  if (carried.over) {
    return;
  }
  if (!pass(one, other) || !pass(other, one) || (one.told && other.told)) {
    end(carried);
    return;
  }
  for (End* end : {&one, &other}) {
    const End& across = end == &one ? other : one;
    const bool reads = !end->finished && end->begin == end->filled;
    const bool writes = across.begin < across.filled;
    if (end->finished && across.told) {
      end->registration.reset();  // or its hang-up would be told again and again
    } else {
      end->registration.watch((reads ? EPOLLIN : 0u) | (writes ? EPOLLOUT : 0u));
    }
  }
}

// False: the connection is lost.
bool Relay::pass(End& from, End& to) {
  for (int turn = 0; turn < kTurns; ++turn) {
    if (from.begin == from.filled && !from.finished) {
      const ssize_t got =
          ::recv(from.socket.get(), from.bytes.data(), from.bytes.size(), MSG_DONTWAIT);
      if (got < 0 && errno != EAGAIN && errno != EINTR) {
        return false;
      }
      if (got < 0) {
        return true;
      }
      from.finished = got == 0;
      from.begin = 0;
      from.filled = static_cast<std::size_t>(got);
    }
    if (from.begin < from.filled) {
      const ssize_t sent = ::send(to.socket.get(), from.bytes.data() + from.begin,
                                  from.filled - from.begin, MSG_NOSIGNAL | MSG_DONTWAIT);
      if (sent < 0 && errno != EAGAIN && errno != EINTR && errno != ENOBUFS) {
        return false;
      }
      if (sent < 0) {
        return true;
      }
      from.begin += static_cast<std::size_t>(sent);
      tally_.bytes += static_cast<std::uint64_t>(sent);
    }
    if (from.finished && !from.told && from.begin == from.filled) {
      from.told = true;
      ::shutdown(to.socket.get(), SHUT_WR);
    }
    if (from.finished) {
      return true;
    }
  }
  return true;
}

void Relay::end(Carried& carried) {
  if (carried.over) {
    return;
  }
  carried.over = true;
  for (End& one : carried.ends) {
    one.registration.reset();
    one.socket.reset();
  }
  const auto at = std::find_if(carried_.begin(), carried_.end(),
                               [&](const auto& one) { return one.get() == &carried; });
  ended_.push_back(std::move(*at));
  carried_.erase(at);
}

void Relay::sweep() {
  hung_up_.clear();
  ended_.clear();
}

RelayTally Relay::tally() const {
  RelayTally tally = tally_;
  tally.pairs = allowed_.size();
  tally.connections = carried_.size();
  return tally;
}

}  // namespace reef
