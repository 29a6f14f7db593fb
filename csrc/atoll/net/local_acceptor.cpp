#include "atoll/net/local_acceptor.h"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <optional>
#include <utility>

#include "atoll/base/limits.h"
#include "atoll/net/local_socket.h"

namespace reef {

namespace {

constexpr int kAcceptsPerTurn = 64;
// Out of file descriptors, a level-triggered listener would spin: it rests for so long.
constexpr Nanos kPause = 100 * kMillisecond;
constexpr std::size_t kDescriptors = 3;  // memory, own bell, peer's bell

}  // namespace

struct LocalAcceptor::Pending final : Ready {
  Pending(LocalAcceptor& its_acceptor, Fd its_socket, Nanos its_deadline)
      : acceptor(its_acceptor), socket(std::move(its_socket)), deadline(its_deadline) {}
  void on_ready(std::uint32_t) override { acceptor.read_from(*this); }

  LocalAcceptor& acceptor;
  Fd socket;
  Registration registration;
  Nanos deadline;
  std::optional<Hello> hello;  // it is in order, and waits to be welcome
  std::vector<Fd> fds;
};

LocalAcceptor::LocalAcceptor(Poller& poller, Fd listener, const Acceptor::Options& options,
                             LocalAcceptorOwner& owner)
    : poller_(poller), listener_(std::move(listener)), options_(options), owner_(owner) {}

LocalAcceptor::~LocalAcceptor() = default;

Result<std::unique_ptr<LocalAcceptor>> LocalAcceptor::create(Poller& poller, Fd listener,
                                                             const Acceptor::Options& options,
                                                             LocalAcceptorOwner& owner) {
  std::unique_ptr<LocalAcceptor> acceptor(
      new LocalAcceptor(poller, std::move(listener), options, owner));
  auto registration = poller.add(acceptor->listener_.get(), EPOLLIN, *acceptor);
  if (!registration) {
    return registration.error();
  }
  acceptor->registration_ = std::move(registration.value());
  return acceptor;
}

void LocalAcceptor::sweep() { dead_.clear(); }

void LocalAcceptor::on_ready(std::uint32_t) {
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
  }
}

void LocalAcceptor::admit(Fd socket, Nanos now) {
  if (!same_user(socket.get())) {
    ++rejections_.bad_hello;
    return;
  }
  if (pending_.size() >= limits::kMaxPendingHandshakes) {
    ++rejections_.overload;
    return;
  }
  auto pending = std::make_unique<Pending>(*this, std::move(socket),
                                           now + options_.handshake_timeout);
  auto registration = poller_.add(pending->socket.get(), EPOLLIN | EPOLLRDHUP, *pending);
  if (!registration) {
    ++rejections_.overload;
    return;
  }
  pending->registration = std::move(registration.value());
  pending_.push_back(std::move(pending));
}

void LocalAcceptor::read_from(Pending& pending) {
  if (pending.hello) {
    bury(pending);  // only its end is watched: it gave up waiting, which is no offence
    return;
  }
  GreetingBytes bytes;
  auto message = receive_message(pending.socket.get(), bytes, kDescriptors);
  if (message && message.value().bytes == 0) {
    return;
  }
  if (!message || message.value().bytes != bytes.size() ||
      message.value().fds.size() != kDescriptors) {
    refuse(pending, rejections_.garbage);
    return;
  }
  const auto hello = parse_greeting(FrameType::hello, bytes);
  if (!hello || !greets(hello.value(), options_.self, options_.secret) ||
      hello.value().connections != 1) {
    refuse(pending, rejections_.bad_hello);
    return;
  }
  pending.hello = hello.value();
  pending.fds = std::move(message.value().fds);
  pending.registration.watch(EPOLLRDHUP);
  // A new attempt of the same peer ends the one before it.
  for (std::size_t i = pending_.size(); i-- > 0;) {
    Pending& other = *pending_[i];
    if (&other != &pending && other.hello && other.hello->sender == pending.hello->sender) {
      refuse(other, rejections_.bad_hello);
    }
  }
  assemble(pending);
}

// Accepts the link, if it is welcome.
void LocalAcceptor::assemble(Pending& pending) {
  const Hello hello = *pending.hello;
  const auto welcome = owner_.welcome(hello.sender, hello.nonce);
  if (welcome == AcceptorOwner::Welcome::later) {
    return;
  }
  if (welcome == AcceptorOwner::Welcome::known) {
    refuse(pending, rejections_.bad_hello);
    return;
  }
  auto memory = ShmMemory::adopt(std::move(pending.fds[0]));
  if (!memory) {  // the dialler falls back to the network
    refuse(pending, memory.error().code == Code::protocol ? rejections_.garbage
                                                          : rejections_.overload);
    owner_.not_shared(hello.sender, memory.error().message);
    return;
  }
  Hello ack = hello;
  ack.sender = options_.self;
  ack.receiver = hello.sender;
  const GreetingBytes bytes = encode_greeting(FrameType::hello_ack, ack);
  if (!send_message(pending.socket.get(), bytes, {}).ok()) {
    bury(pending);  // gone already
    return;
  }
  LocalChannel channel;
  channel.memory = std::move(memory.value());
  channel.memory.close_fd();
  channel.own_bell = std::move(pending.fds[1]);
  channel.peer_bell = std::move(pending.fds[2]);
  pending.registration.reset();
  channel.socket = std::move(pending.socket);
  bury(pending);
  owner_.accepted(hello.sender, hello.nonce, std::move(channel));
}

void LocalAcceptor::reconsider() {
  for (std::size_t i = 0; i < pending_.size();) {
    const std::size_t before = pending_.size();
    if (pending_[i]->hello) {
      assemble(*pending_[i]);
    }
    i = pending_.size() == before ? i + 1 : 0;  // it removed some: begin again
  }
}

Nanos LocalAcceptor::tick(Nanos now) {
  if (paused_until_ != kNever && now >= paused_until_) {
    paused_until_ = kNever;
    registration_.watch(EPOLLIN);
  }
  Nanos next = paused_until_;
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

void LocalAcceptor::refuse(Pending& pending, std::uint64_t& counter) {
  ++counter;
  bury(pending);
}

void LocalAcceptor::bury(const Pending& pending) {
  const auto at = std::find_if(pending_.begin(), pending_.end(),
                               [&](const auto& one) { return one.get() == &pending; });
  check(at != pending_.end(), "LocalAcceptor::bury: it is not pending");
  (*at)->registration.reset();
  (*at)->socket.reset();
  dead_.push_back(std::move(*at));
  pending_.erase(at);
}

}  // namespace reef
