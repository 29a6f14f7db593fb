#include "atoll/net/acceptor.h"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <optional>

namespace reef {

namespace {

constexpr int kAcceptsPerTurn = 64;
// Out of file descriptors, a level-triggered listener would spin: it rests for so long.
constexpr Nanos kPause = 100 * kMillisecond;

}  // namespace

// A connection before its handshake is through.
struct Acceptor::Pending final : Ready {
  Pending(Acceptor& its_acceptor, Fd its_socket, Nanos its_deadline)
      : acceptor(its_acceptor), socket(std::move(its_socket)), deadline(its_deadline) {}
  void on_ready(std::uint32_t) override { acceptor.read_from(*this); }

  Acceptor& acceptor;
  Fd socket;
  Registration registration;
  Nanos deadline;
  GreetingBytes bytes{};
  std::size_t filled = 0;
  std::optional<Hello> hello;  // it is in order, and waits for its siblings or to be welcome
};

Acceptor::Acceptor(Poller& poller, Fd listener, const Options& options, AcceptorOwner& owner)
    : poller_(poller), listener_(std::move(listener)), options_(options), owner_(owner) {}

Acceptor::~Acceptor() = default;

Result<std::unique_ptr<Acceptor>> Acceptor::create(Poller& poller, Fd listener,
                                                   const Options& options, AcceptorOwner& owner) {
  std::unique_ptr<Acceptor> acceptor(new Acceptor(poller, std::move(listener), options, owner));
  auto registration = poller.add(acceptor->listener_.get(), EPOLLIN, *acceptor);
  if (!registration) {
    return registration.error();
  }
  acceptor->registration_ = std::move(registration.value());
  return acceptor;
}

void Acceptor::sweep() { dead_.clear(); }

void Acceptor::on_ready(std::uint32_t) {
  const Nanos now = monotonic_now();
  for (int i = 0; i < kAcceptsPerTurn; ++i) {
    Fd socket(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (socket.valid()) {
      admit(std::move(socket), now);
      continue;
    }
    if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
      ++rejections_.overload;
      paused_until_ = now + kPause;
      registration_.watch(0);
      return;
    }
    if (errno == EAGAIN) {
      return;
    }
    // Others (ECONNABORTED, EINTR, a network error of that one connection) concern one connection.
  }
}

void Acceptor::admit(Fd socket, Nanos now) {
  if (pending_.size() >= limits::kMaxPendingHandshakes) {
    ++rejections_.overload;
    return;
  }
  auto pending = std::make_unique<Pending>(*this, std::move(socket),
                                           now + options_.handshake_timeout);
  auto registration = poller_.add(pending->socket.get(), EPOLLIN, *pending);
  if (!registration) {
    ++rejections_.overload;
    return;
  }
  pending->registration = std::move(registration.value());
  pending_.push_back(std::move(pending));
}

void Acceptor::read_from(Pending& pending) {
  if (pending.hello) {
    bury(pending);  // only its end is watched: it gave up waiting, which is no offence
    return;
  }
  while (pending.filled < kGreetingBytes) {
    const ssize_t got = ::recv(pending.socket.get(), pending.bytes.data() + pending.filled,
                               kGreetingBytes - pending.filled, MSG_DONTWAIT);
    if (got < 0 && errno == EINTR) {
      continue;
    }
    if (got < 0 && errno == EAGAIN) {
      break;
    }
    if (got <= 0) {
      refuse(pending, rejections_.garbage);
      return;
    }
    pending.filled += static_cast<std::size_t>(got);
  }
  if (pending.filled >= kHeaderBytes) {  // do not wait for the rest of what is wrong already
    const auto header = parse_header(pending.bytes);
    if (!header || header.value().type != FrameType::hello) {
      refuse(pending, rejections_.garbage);
      return;
    }
  }
  if (pending.filled == kGreetingBytes) {
    judge(pending);
  }
}

void Acceptor::judge(Pending& pending) {
  const auto hello = parse_greeting(FrameType::hello, pending.bytes);
  if (!hello || !same_secret(hello.value().secret, options_.secret) ||
      hello.value().receiver != options_.self || hello.value().sender == options_.self) {
    refuse(pending, rejections_.bad_hello);
    return;
  }
  pending.hello = hello.value();
  if (!fits(pending)) {
    refuse(pending, rejections_.bad_hello);
    return;
  }
  // Only its end is of interest from now on; the dialer says nothing more before its ack.
  pending.registration.watch(EPOLLRDHUP);
  assemble(pending);
}

// Whether a HELLO agrees with those of the same peer that wait. Another nonce begins a new attempt,
// and ends the one before it.
bool Acceptor::fits(const Pending& latest) {
  const Hello& hello = *latest.hello;
  for (std::size_t i = pending_.size(); i-- > 0;) {
    Pending& other = *pending_[i];
    if (&other == &latest || !other.hello || other.hello->sender != hello.sender) {
      continue;
    }
    if (other.hello->nonce != hello.nonce) {
      refuse(other, rejections_.bad_hello);
    } else if (other.hello->connections != hello.connections ||
               other.hello->connection_index == hello.connection_index) {
      return false;
    }
  }
  return true;
}

// Accepts the link of which `latest` is a part, if it is complete and welcome.
void Acceptor::assemble(const Pending& latest) {
  const Hello hello = *latest.hello;
  std::vector<Pending*> parts(hello.connections, nullptr);
  std::size_t present = 0;
  for (const auto& one : pending_) {
    if (one->hello && one->hello->sender == hello.sender && one->hello->nonce == hello.nonce) {
      parts[one->hello->connection_index] = one.get();
      ++present;
    }
  }
  const auto welcome = owner_.welcome(hello.sender, hello.nonce);
  if (welcome == AcceptorOwner::Welcome::known) {
    for (Pending* part : parts) {
      if (part != nullptr) {
        refuse(*part, rejections_.bad_hello);
      }
    }
    return;
  }
  if (present < hello.connections || welcome == AcceptorOwner::Welcome::later) {
    return;
  }
  std::vector<Fd> sockets;
  for (Pending* part : parts) {
    Hello ack = *part->hello;
    ack.sender = options_.self;
    ack.receiver = hello.sender;
    const GreetingBytes bytes = encode_greeting(FrameType::hello_ack, ack);
    // A fresh socket takes so few bytes at once, or it is broken: then the link will end at once.
    const ssize_t sent =
        ::send(part->socket.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent != static_cast<ssize_t>(bytes.size())) {
      ::shutdown(part->socket.get(), SHUT_RDWR);
    }
    part->registration.reset();
    sockets.push_back(std::move(part->socket));
    bury(*part);
  }
  owner_.accepted(hello.sender, hello.nonce, std::move(sockets));
}

void Acceptor::reconsider() {
  // Each round may remove entries: start again until a round removes nothing.
  for (std::size_t i = 0; i < pending_.size();) {
    const std::size_t before = pending_.size();
    if (pending_[i]->hello) {
      assemble(*pending_[i]);
    }
    i = pending_.size() == before ? i + 1 : 0;
  }
}

Nanos Acceptor::tick(Nanos now) {
  Nanos next = kNever;
  if (paused_until_ != kNever && now >= paused_until_) {
    paused_until_ = kNever;
    registration_.watch(EPOLLIN);
  }
  next = std::min(next, paused_until_);
  for (std::size_t i = pending_.size(); i-- > 0;) {
    Pending& pending = *pending_[i];
    if (now >= pending.deadline) {
      refuse(pending, pending.hello ? rejections_.bad_hello : rejections_.timeout);
    } else {
      next = std::min(next, pending.deadline);
    }
  }
  return next;
}

void Acceptor::refuse(Pending& pending, std::uint64_t& counter) {
  ++counter;
  bury(pending);
}

void Acceptor::bury(const Pending& pending) {
  const auto at = std::find_if(pending_.begin(), pending_.end(),
                               [&](const auto& one) { return one.get() == &pending; });
  check(at != pending_.end(), "Acceptor::bury: it is not pending");
  (*at)->registration.reset();
  (*at)->socket.reset();
  dead_.push_back(std::move(*at));
  pending_.erase(at);
}

}  // namespace reef
