// Links through a relay: two that reach only a third.
#include <gtest/gtest.h>

#include <vector>

#include "certificates.h"
#include "island.h"
#include "proxy.h"

namespace reef::testing {
namespace {

constexpr std::size_t kCount = 2'000'003;
constexpr Ticket kTicket{1, 2, 3};

LinkStats link_with(const Island& island, const PeerId& peer) {
  for (const LinkStats& link : island.engine->stats().links) {
    if (link.peer == peer) {
      return link;
    }
  }
  ADD_FAILURE() << "no such link";
  return {};
}

// `a` and `b` dial `r` and know no address of each other.
class RelayedLink : public ::testing::TestWithParam<bool> {
 protected:
  EngineOptions with(unsigned number) const {
    EngineOptions options = options_of(number);
    options.dial_timeout = 500 * kMillisecond;
    options.repair_grace = 30 * kSecond;  // nothing here waits for it
    if (GetParam()) {
      options.tls = tls_of(member, job);
    }
    return options;
  }
  void SetUp() override {
    a = std::make_unique<Island>(with(1));
    b = std::make_unique<Island>(with(2));
    r = std::make_unique<Island>(with(3));
    for (Island* one : {a.get(), b.get()}) {
      r->engine->expect(one->id);
      one->engine->dial(r->id, "127.0.0.1", r->engine->port());
      one->await_up(r->id);
      r->await_up(one->id);
    }
    b->engine->expect(a->id);
  }
  void dial_through(std::uint16_t port, const Ticket& ticket = kTicket) const {
    a->engine->dial(b->id, {{"127.0.0.1", port}}, r->id, ticket);
  }
  void link_through(std::uint16_t port) {
    r->engine->carry(b->id, a->id, kTicket);
    dial_through(port);
    a->await_up(b->id);
    b->await_up(a->id);
  }
  void expect_sums(float scale) const {
    const std::vector<float> x(kCount, scale);
    const std::vector<float> y(kCount, 10 * scale);
    std::vector<float> out_a(kCount);
    std::vector<float> out_b(kCount);
    const OpId first = a->all_reduce(x, out_a);
    const OpId second = b->all_reduce(y, out_b);
    EXPECT_EQ(a->code(first), Code::ok);
    EXPECT_EQ(b->code(second), Code::ok);
    EXPECT_EQ(out_a, std::vector<float>(kCount, 11 * scale));
    EXPECT_EQ(out_b, out_a);
  }
  void install_pair() const {
    const View view{1, {a->id, b->id}};
    a->install(view);
    b->install(view);
  }

  Identity job = authority("job");
  Identity member{"member", {.issuer = &job}};
  std::unique_ptr<Island> a;
  std::unique_ptr<Island> b;
  std::unique_ptr<Island> r;
};
INSTANTIATE_TEST_SUITE_P(Over, RelayedLink, ::testing::Bool(),
                         [](const auto& over) { return over.param ? "Tls" : "Tcp"; });

TEST_P(RelayedLink, CarriesAnAllReduce) {
  link_through(r->engine->port());
  install_pair();
  for (int round = 1; round < 4; ++round) {
    expect_sums(static_cast<float>(round));
  }
  const Transport transport = GetParam() ? Transport::tls : Transport::tcp;
  EXPECT_EQ(link_with(*a, b->id).relay, r->id);
  EXPECT_EQ(link_with(*b, a->id).relay, r->id);
  EXPECT_EQ(link_with(*a, b->id).transport, transport);
  EXPECT_EQ(link_with(*a, r->id).relay, std::nullopt);
  const EngineStats stats = r->engine->stats();
  EXPECT_EQ(stats.relay.pairs, 1u);
  EXPECT_EQ(stats.relay.connections, 2u);
  EXPECT_EQ(stats.relay.total, 2u);
  EXPECT_EQ(stats.relay.refused, 0u);
  // Two members send the other half of the vector each, and the sum of one's own.
  EXPECT_GE(stats.relay.bytes, 3 * 2 * kCount * sizeof(float));
  EXPECT_EQ(stats.rejected_tls + stats.rejected_garbage + stats.rejected_bad_hello, 0u);
}

TEST_P(RelayedLink, EndsAtOnceWhenTheRelayIsGone) {
  link_through(r->engine->port());
  install_pair();
  expect_sums(1);
  const PeerId relay = r->id;
  r.reset();
  const LinkDown down = a->await_down(b->id);
  EXPECT_EQ(down.reason, LinkEnd::reset);
  EXPECT_NE(down.message.find("(relay " + relay.shorthand() + ")"), std::string::npos)
      << down.message;
  EXPECT_NE(down.message.find("refused"), std::string::npos) << down.message;
}

TEST_P(RelayedLink, EndsWhenTheRelayIsClosed) {
  link_through(r->engine->port());
  r->engine->close();
  EXPECT_EQ(r->engine->stats().relay.connections, 0u);
}

TEST_P(RelayedLink, MendsWhatIsCutOnTheWayToTheRelay) {
  Proxy proxy(r->engine->port(), {});
  link_through(proxy.port());
  install_pair();
  expect_sums(1);
  proxy.cut_all();
  expect_sums(2);
  proxy.cut_all();
  expect_sums(3);
  EXPECT_GE(link_with(*a, b->id).repairs, 2u);
  EXPECT_TRUE(link_with(*a, b->id).up);
}

TEST_P(RelayedLink, IsRefusedToThoseOfWhomTheRelayWasNotTold) {
  dial_through(r->engine->port());
  EXPECT_EQ(a->await_down(b->id).reason, LinkEnd::unreachable);
  r->engine->carry(a->id, b->id, Ticket{9});
  dial_through(r->engine->port());
  EXPECT_EQ(a->await_down(b->id).reason, LinkEnd::unreachable);
  EXPECT_GE(r->engine->stats().relay.refused, 2u);
  EXPECT_EQ(r->engine->stats().relay.total, 0u);
  r->engine->carry(a->id, b->id, kTicket);
  r->engine->uncarry(b->id, a->id);
  dial_through(r->engine->port());
  EXPECT_EQ(a->await_down(b->id).reason, LinkEnd::unreachable);
  EXPECT_TRUE(link_with(*a, r->id).up);
}

TEST_P(RelayedLink, EndsWhenTheRelayIsToKnowOneOfThemNoMore) {
  link_through(r->engine->port());
  ASSERT_EQ(r->engine->stats().relay.connections, 2u);
  r->engine->drop(b->id);
  b->await_down(r->id);
  EXPECT_EQ(r->engine->stats().relay.connections, 0u);
  EXPECT_EQ(r->engine->stats().relay.pairs, 0u);
}

TEST_P(RelayedLink, GivesWayToADirectOneThatComesLater) {
  link_through(r->engine->port());
  a->engine->drop(b->id);
  b->await_down(a->id);
  a->engine->dial(b->id, "127.0.0.1", b->engine->port());
  a->await_up(b->id);
  b->await_up(a->id);
  EXPECT_EQ(link_with(*a, b->id).relay, std::nullopt);
  EXPECT_EQ(link_with(*b, a->id).relay, std::nullopt);
}

}  // namespace
}  // namespace reef::testing
