import ca.uhn.fhir.batch2.jobs.config.Batch2JobsConfig;
import ca.uhn.fhir.context.FhirContext;
import ca.uhn.fhir.context.support.IValidationSupport;
import ca.uhn.fhir.jpa.api.config.JpaStorageSettings;
import ca.uhn.fhir.jpa.api.config.ThreadPoolFactoryConfig;
import ca.uhn.fhir.jpa.api.dao.DaoRegistry;
import ca.uhn.fhir.jpa.api.dao.IFhirSystemDao;
import ca.uhn.fhir.jpa.batch2.JpaBatch2Config;
import ca.uhn.fhir.jpa.config.HapiJpaConfig;
import ca.uhn.fhir.jpa.config.r4.JpaR4Config;
import ca.uhn.fhir.jpa.config.util.HapiEntityManagerFactoryUtil;
import ca.uhn.fhir.jpa.model.config.PartitionSettings;
import ca.uhn.fhir.jpa.model.config.SubscriptionSettings;
import ca.uhn.fhir.jpa.model.dialect.HapiFhirH2Dialect;
import ca.uhn.fhir.jpa.provider.IJpaSystemProvider;
import ca.uhn.fhir.jpa.provider.JpaCapabilityStatementProvider;
import ca.uhn.fhir.jpa.search.DatabaseBackedPagingProvider;
import ca.uhn.fhir.jpa.subscription.channel.config.SubscriptionChannelConfig;
import ca.uhn.fhir.jpa.subscription.submit.config.SubscriptionSubmitterConfig;
import ca.uhn.fhir.rest.server.RestfulServer;
import ca.uhn.fhir.rest.server.provider.ResourceProviderFactory;
import ca.uhn.fhir.rest.server.util.ISearchParamRegistry;
import jakarta.persistence.EntityManagerFactory;
import java.net.InetSocketAddress;
import java.util.List;
import java.util.Properties;
import javax.sql.DataSource;
import org.apache.commons.dbcp2.BasicDataSource;
import org.eclipse.jetty.ee10.servlet.ServletContextHandler;
import org.eclipse.jetty.ee10.servlet.ServletHolder;
import org.eclipse.jetty.server.Server;
import org.springframework.beans.factory.config.ConfigurableListableBeanFactory;
import org.springframework.context.annotation.AnnotationConfigApplicationContext;
import org.springframework.context.annotation.Bean;
import org.springframework.context.annotation.Configuration;
import org.springframework.context.annotation.Import;
import org.springframework.context.annotation.Primary;
import org.springframework.orm.jpa.JpaTransactionManager;
import org.springframework.orm.jpa.LocalContainerEntityManagerFactoryBean;

/** HAPI FHIR's JPA server, R4, as it comes: its database in a file of the folder it runs in. Argument: the port. */
public class FhirServer {
  public static void main(String[] args) throws Exception {
    var beans = new AnnotationConfigApplicationContext(Beans.class);
    var server = new Server(new InetSocketAddress("127.0.0.1", Integer.parseInt(args[0])));
    var handler = new ServletContextHandler("/");
    handler.addServlet(new ServletHolder(beans.getBean(RestfulServer.class)), "/fhir/*");
    server.setHandler(handler);
    server.start();
    server.join();
  }

  @Configuration
  @Import({
    JpaR4Config.class, HapiJpaConfig.class, JpaBatch2Config.class, Batch2JobsConfig.class,
    ThreadPoolFactoryConfig.class, SubscriptionSubmitterConfig.class, SubscriptionChannelConfig.class
  })
  static class Beans {
    @Bean
    JpaStorageSettings storage() {
      return new JpaStorageSettings();
    }

    @Bean
    SubscriptionSettings subscriptions() {
      return new SubscriptionSettings();
    }

    @Bean
    PartitionSettings partitions() {
      return new PartitionSettings();
    }

    @Bean
    DataSource database() {
      var made = new BasicDataSource();
      made.setUrl("jdbc:h2:file:./data/fhir");
      made.setUsername("sa");
      made.setPassword("");
      made.setMaxTotal(20);
      return made;
    }

    @Bean
    LocalContainerEntityManagerFactoryBean entityManagerFactory(
        DataSource database, ConfigurableListableBeanFactory beans, FhirContext fhir, JpaStorageSettings storage) {
      var made = HapiEntityManagerFactoryUtil.newEntityManagerFactory(beans, fhir, storage);
      made.setPersistenceUnitName("HAPI_PU");
      made.setDataSource(database);
      var properties = new Properties();
      properties.put("hibernate.dialect", HapiFhirH2Dialect.class.getName());
      properties.put("hibernate.hbm2ddl.auto", "update");
      properties.put("hibernate.search.enabled", "false");
      made.setJpaProperties(properties);
      return made;
    }

    @Bean
    @Primary
    JpaTransactionManager transactionManager(EntityManagerFactory factory) {
      return new JpaTransactionManager(factory);
    }

    @Bean
    RestfulServer server(
        IFhirSystemDao<?, ?> dao, DaoRegistry registry, ResourceProviderFactory providers, IJpaSystemProvider system,
        DatabaseBackedPagingProvider paging, JpaStorageSettings storage, ISearchParamRegistry parameters,
        IValidationSupport validation) {
      // Fewer kinds, sooner ready.
      registry.setSupportedResourceTypes(
          List.of("Basic", "Condition", "MedicationStatement", "Observation", "Patient", "SearchParameter"));
      var made = new RestfulServer(dao.getContext());
      made.registerProviders(providers.createProviders());
      made.registerProvider(system);
      made.setServerConformanceProvider(
          new JpaCapabilityStatementProvider(made, dao, storage, parameters, validation));
      made.setPagingProvider(paging);
      return made;
    }
  }
}
